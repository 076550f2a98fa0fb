"""Content of input files: a file whose time stamp changed is the same input if its bytes are.

The version of a file on disk is its modification time, which `touch` and copies change. `run.json`
therefore has a digest of each file. Object storage has ETags, which follow from the content.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pipeline import storage
from pipeline.input.read_ahead import read_ahead
from pipeline.output.run_folder import RunFolder, input_keys
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials
from pipeline.storage.urls import LOCAL_SCHEMES, scheme_of

# Of all files together. SHA-256 takes about a second per GiB and core.
DIGEST_LIMIT_BYTES = 4 * 2**30
DIGEST_KEY = "sha256"  # of a file in run.json


def content_digests(
    files: Sequence[InputFile], limit_bytes: int = DIGEST_LIMIT_BYTES
) -> dict[str, str]:
    """Returns the SHA-256 of files on disk by URL; of none, if they have more than `limit_bytes`.

    Raises:
        DatasetError: a file has changed since it was listed.
    """
    local = [file for file in files if scheme_of(file.url) in LOCAL_SCHEMES]
    if sum(file.size for file in local) > limit_bytes:
        return {}
    urls = [redact_credentials(file.url) for file in local]
    return dict(zip(urls, read_ahead(_digest, local), strict=True))


def run_input_keys(folder: RunFolder, files: Sequence[InputFile]) -> list[list[Any]]:
    """Returns `input_keys` of the files as the run in `folder` has them, if it has the same.

    A file of the same path, size, rows and content has the version that it had when the run began.

    Raises:
        DatasetError: `run.json` is not a run description, or a file cannot be read.
    """
    keys = input_keys(files)
    if not folder.exists():
        return keys
    description = folder.description()
    stored_keys = _keys_by_url(description["fingerprint_keys"].get("input"))
    stored_digests = _digests_by_url(description.get("input"))

    changed: list[int] = []
    for index, key in enumerate(keys):
        url, size, _, rows = key
        stored_key = stored_keys.get(url, key)
        if stored_key != key and stored_key[1] == size and stored_key[3] == rows:
            changed.append(index)
    changed_files = [files[index] for index in changed if keys[index][0] in stored_digests]
    digests = content_digests(changed_files)
    for index in changed:
        url = keys[index][0]
        if url in digests and digests[url] == stored_digests[url]:
            keys[index] = stored_keys[url]
    return keys


def _digest(file: InputFile) -> str:
    with storage.open_object(file.url, version=file.version) as stream:
        return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


def _keys_by_url(stored: Any) -> dict[str, list[Any]]:
    """Returns the entries of a stored listing by URL; leaves out what is not one."""
    keys: dict[str, list[Any]] = {}
    for key in stored or ():
        if isinstance(key, list) and len(key) == 4:
            keys[key[0]] = key
    return keys


def _digests_by_url(stored: Any) -> Mapping[str, str]:
    digests: dict[str, str] = {}
    for entry in stored or ():
        if DIGEST_KEY in entry:
            digests[entry["url"]] = entry[DIGEST_KEY]
    return digests
