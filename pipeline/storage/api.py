"""URLs -> listings, bytes, and objects that appear whole or not at all.

It knows no Parquet, no shards and no runs.

Any fsspec URL can be read; plain paths, `file://` and `s3://` can be written. An S3 endpoint other
than AWS is named by the usual environment variables (AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_S3,
AWS_ACCESS_KEY_ID …).

How an object appears. Never "put, then rename": on object storage a rename copies and deletes, and is seen half-way.
    put_if_absent  create-only. S3: one PutObject with If-None-Match. Disk: write aside, fsync, link, fsync the folder, unlink aside
    replace     only against the version that was read. S3: PutObject with If-Match. Disk: compare and rename under a folder lock
    overwrite   unconditional, for reports that nobody resumes from

A version is the ETag on object storage and the modification time in ns on disk.

Outages of object storage are waited out as `pipeline/storage/retries.py` says.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.utils import get_protocol

from actors.protocol.retries import BUSY
from pipeline.errors import DatasetError, OutageError
from pipeline.storage import local_disk
from pipeline.storage.redaction import redact_credentials
from pipeline.storage.retries import CLIENT_ERRORS, NO_ANSWER, PatientRanges, may_pass, patiently

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
ENDPOINT_ATTEMPTS = 2  # per request, inside the S3 client; all further patience is ours
LONGEST_PUT_BYTES = 5 * 2**30  # the largest object that one PutObject can create
READ_AHEAD_BYTES = 8 * 2**20
S3_PROTOCOLS = ("s3", "s3a")
GLOB_CHARACTERS = "*?["


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as listed: its URL, size and version (see above)."""

    url: str
    size: int
    version: str


def join(folder: str, *names: str) -> str:
    """Returns the URL of `names` below `folder`."""
    return "/".join([folder.rstrip("/"), *names])


def canonical(url: str) -> str:
    """Returns `url` as listings spell it: an absolute path on disk, `s3://bucket/key` on object storage; no slash at the end."""
    fs, path = _filesystem(url)
    return str(path if _is_local(url) else fs.unstrip_protocol(path)).rstrip("/")


def list_objects(url: str) -> tuple[StoredObject, ...]:
    """Returns the objects of a folder (at any depth), a glob or a single file, sorted by URL.

    Empty when nothing matches.

    Raises:
        DatasetError: bucket or file missing (a folder on disk that does not exist counts as empty), no permission.
        OutageError: the endpoint does not answer.
    """
    with _explained(url, "list"):
        fs, path = _filesystem(url)
        if _is_local(url):
            return tuple(
                StoredObject(name, size, str(version))
                for name, size, version in local_disk.list_files(path)
            )
        found = patiently(lambda: _found(fs, path, url))
    listed = (
        _stored(fs, info)
        for info in found
        if info["type"] == "file" and not info["name"].endswith("/")
    )
    return tuple(sorted(listed, key=lambda stored: stored.url))


def stat(url: str) -> StoredObject | None:
    """Returns size and version of the object at `url`, None when there is none.

    Raises:
        DatasetError: no permission. OutageError: no answer.
    """
    with _explained(url, "look at"):
        if _is_local(url):
            return next(
                (stored for stored in list_objects(url) if stored.url == canonical(url)), None
            )
        fs, path = _filesystem(url)
        return patiently(lambda: _looked_at(fs, path))


@contextmanager
def open_object(url: str, *, sequential: bool = False, version: str = "") -> Iterator[BinaryIO]:
    """Opens the object for reading.

    Seekable. On object storage each read is one range request (`sequential`: reads ahead).

    Every range is read against the ETag that was found when the object was opened: a file that
    changes meanwhile is an error.

    Args:
        url: of the object.
        sequential: it will be read from beginning to end.
        version: that the object had when it was listed; empty: whatever it has.

    Raises:
        DatasetError: the object is missing, may not be read, or has another version.
        OutageError: the endpoint does not answer.
    """
    with _explained(url, "read"):
        fs, path = _filesystem(url)
        if _is_local(url):
            with fs.open(path, "rb") as opened:
                _check_version(url, version, str(os.fstat(opened.fileno()).st_mtime_ns))
                yield cast(BinaryIO, opened)
            return
        with patiently(
            lambda: fs.open(path, "rb", cache_type="none", block_size=READ_AHEAD_BYTES)
        ) as opened:
            _check_version(url, version, _version(getattr(opened, "details", None) or {}))
            ranges = PatientRanges(opened)
            yield cast(
                BinaryIO, io.BufferedReader(ranges, READ_AHEAD_BYTES) if sequential else ranges
            )


def read(url: str) -> tuple[bytes, str]:
    """Returns an object's bytes and the version that these bytes are of.

    Raises:
        DatasetError: the object is missing or may not be read. OutageError: no answer.
    """
    with open_object(url) as opened:
        if not _is_s3(url):
            # of the opened file: a rename meanwhile is not seen
            status = os.fstat(opened.fileno()) if _is_local(url) else None
            data = opened.read()
            return data, str(status.st_mtime_ns) if status is not None else ""
        # every range is read against this ETag
        return opened.read(), _version(cast(Any, opened).details)


def put_if_absent(url: str, data: bytes) -> bool:
    """Creates the object at `url` with all of `data`, if there is none.

    Returns:
        True: this call created it. False: an object is there, somebody else's or our own from a try whose answer was lost;
        whoever needs to know reads it.

    Raises:
        DatasetError: it could not be written, and there is no object at `url` now.
        OutageError: the same, and the endpoint did not answer.
    """
    _check_size(url, data)
    with _explained(url, "create"):
        if _is_local(url):
            return local_disk.put_if_absent(_local_path(url), data)
        fs, path = _s3(url)
        return patiently(lambda: _put_new(fs, path, data))


def replace(url: str, data: bytes, version: str) -> bool:
    """Replaces the object at `url` by `data`, if it still has the `version` that was read.

    Returns:
        True: replaced. False: it has another version by now (perhaps our own, from a try whose answer was lost), or is gone.

    Raises:
        DatasetError: it could not be written, and the object still has `version`.
        OutageError: the same, and the endpoint did not answer.
    """
    _check_size(url, data)
    with _explained(url, "replace"):
        if _is_local(url):
            return local_disk.replace(_local_path(url), data, version)
        fs, path = _s3(url)
        return patiently(lambda: _put_instead(fs, path, data, version))


def remove_abandoned(url: str) -> int:
    """Removes what killed drivers left aside in the folder `url` (on disk only).

    Returns how many files. Raises DatasetError.
    """
    if not _is_local(url):
        return 0
    with _explained(url, "clean"):
        return local_disk.remove_abandoned(_local_path(url))


def overwrite(url: str, data: bytes) -> None:
    """Writes `data` at `url` whatever is there.

    Readers see the old bytes or the new ones, never a part.

    Raises:
        DatasetError: it could not be written.
    """
    _check_size(url, data)
    with _explained(url, "write"):
        if not _is_local(url):
            fs, path = _s3(url)
            patiently(lambda: fs.pipe_file(path, data, chunksize=LONGEST_PUT_BYTES))
            return
        local_disk.overwrite(_local_path(url), data)


# -- fsspec ---------------------------------------------------------------------------------------------------------------


def _put_new(fs: Any, path: str, data: bytes) -> bool:
    try:
        # A chunk size of the whole keeps it one PutObject; not every server honours the condition
        # on multipart uploads.
        fs.pipe_file(path, data, mode="create", chunksize=LONGEST_PUT_BYTES)
    except CLIENT_ERRORS:
        # Servers disagree about the error (FileExistsError, OSError 22 …): the object itself tells
        # whether we lost a race.
        if _looked_at(fs, path) is None:
            raise
        return False
    return True


def _put_instead(fs: Any, path: str, data: bytes, version: str) -> bool:
    """Puts under the condition as HTTP spells it, or, where the server takes that for another version, without the quotes."""
    for condition in (f'"{version}"', version):
        try:
            fs.pipe_file(path, data, chunksize=LONGEST_PUT_BYTES, IfMatch=condition)
        except CLIENT_ERRORS as error:
            now = _looked_at(fs, path)
            if now is None or now.version != version:
                return False
            if may_pass(error) or condition == version:
                raise
        else:
            return True
    return False


def _looked_at(fs: Any, path: str) -> StoredObject | None:
    try:
        info = fs.info(path)
    except FileNotFoundError:
        return None
    return _stored(fs, info) if info["type"] == "file" else None


def _found(fs: Any, path: str, url: str) -> list[dict[str, Any]]:
    found = _find(fs, path)
    if not found and _is_s3(url):
        # an empty listing hides that the bucket is missing
        fs.call_s3("head_bucket", Bucket=fs.split_path(path)[0])
    return found


def _check_version(url: str, expected: str, found: str) -> None:
    url = redact_credentials(url)
    if expected and found and expected != found:
        raise DatasetError(
            f"{url} was listed with version {expected} and has {found} now: it changed; start a "
            "new run"
        )


def _is_local(url: str) -> bool:
    return get_protocol(url) in ("file", "local")


def _is_s3(url: str) -> bool:
    return get_protocol(url) in S3_PROTOCOLS


def _local_path(url: str) -> Path:
    return Path(_filesystem(url)[1])


def _s3(url: str) -> tuple[Any, str]:
    if not _is_s3(url):
        why = "only plain paths, file:// and s3:// can be created without overwriting; write there and copy the finished run"
        raise DatasetError(f"cannot write {redact_credentials(url)}: {why}")
    return _filesystem(url)


def _filesystem(url: str) -> tuple[Any, str]:
    """Returns the file system (fsspec keeps one per configuration) and the path of `url` in it."""
    options: dict[str, Any] = {}
    if _is_s3(url):
        options = {
            "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL"),
            "use_listings_cache": False,  # other drivers write too
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"mode": "standard", "max_attempts": ENDPOINT_ATTEMPTS},
                "max_pool_connections": 32,
            },
        }
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise DatasetError(
            f"cannot use {redact_credentials(url)}: no file system for this kind of URL is "
            f"installed ({error})"
        ) from error
    if _is_s3(url):
        fs.retries = 1  # we have patience of our own
    return fs, path


def _find(fs: Any, path: str) -> list[dict[str, Any]]:
    if any(character in path for character in GLOB_CHARACTERS) and not fs.exists(path):
        return list(fs.glob(path, detail=True).values())
    try:
        info = fs.info(path)
    except FileNotFoundError:
        return []
    if info["type"] == "file":
        return [info]
    return list(fs.find(path, detail=True).values())


def _stored(fs: Any, info: dict[str, Any]) -> StoredObject:
    url = str(fs.unstrip_protocol(info["name"]))
    return StoredObject(url=url, size=int(info["size"]), version=_version(info))


def _version(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("etag") or info.get("LastModified") or "").strip('"')


def _check_size(url: str, data: bytes) -> None:
    if len(data) >= LONGEST_PUT_BYTES:
        raise DatasetError(
            f"cannot write {url}: it has {len(data)} bytes, a put holds less than "
            f"{LONGEST_PUT_BYTES}; use a smaller --shard-rows"
        )


@contextmanager
def _explained(url: str, action: str) -> Iterator[None]:
    """Turns what file systems and S3 clients raise into one sentence, without the credentials that a URL may hold."""
    shown = redact_credentials(url)
    try:
        yield
    except FileNotFoundError as error:
        what = "the bucket does not exist" if _no_bucket(error) else "it does not exist"
        raise DatasetError(f"cannot {action} {shown}: {what}; check the path") from error
    except PermissionError as error:
        reason = redact_credentials(str(error))
        raise DatasetError(
            f"cannot {action} {shown}: permission denied ({reason}); check credentials and access "
            "rights"
        ) from error
    except CLIENT_ERRORS as error:
        kind = OutageError if may_pass(error) else DatasetError
        raise kind(f"cannot {action} {shown}: {redact_credentials(_cause(error))}") from error


def _no_bucket(error: Exception) -> bool:
    answer: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    named = answer.get("Error", {}).get("Code") == "NoSuchBucket"
    return named or "bucket does not exist" in str(error) or "HeadBucket" in str(error.__cause__)


def _cause(error: Exception) -> str:
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no S3 credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role"
    if isinstance(error, NO_ANSWER):
        return f"the endpoint does not answer ({name}: {error}); check AWS_ENDPOINT_URL and the network, then run it again"
    if isinstance(error, OSError) and error.errno in BUSY:
        return f"the endpoint is overloaded or broken ({error}); run it again later"
    return f"{name}: {error}"
