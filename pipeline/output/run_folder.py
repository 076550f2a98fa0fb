"""The output folder of a run: where its objects are, and whether it belongs to the same run.

run.json                 configuration and fingerprint; created once, by the first driver
data/part-00017.parquet  one committed shard; the listing of data/ is the record of finished work
report.json, .html       written at the end
_SUCCESS                 created last, by the driver that finds every shard committed
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.parquet as pq

from actors.protocol.plain_text import quoted
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials

PART_NAME = re.compile(r"part-(\d{5,})\.parquet")
DISPLAYED_CHARS = 200  # of a value in a message


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of the objects of the run at `url`, and the client that reads and writes them."""

    url: str
    client: storage.Client = storage.DEFAULT_CLIENT

    @property
    def data_url(self) -> str:
        """Folder of the parts."""
        return storage.join(self.url, "data")

    @property
    def run_url(self) -> str:
        """`run.json`."""
        return storage.join(self.url, "run.json")

    @property
    def success_url(self) -> str:
        """`_SUCCESS`."""
        return storage.join(self.url, "_SUCCESS")

    def part_url(self, shard: int) -> str:
        """The part of a shard."""
        return storage.join(self.data_url, f"part-{shard:05d}.parquet")

    def parts(self) -> dict[int, storage.StoredObject]:
        """Returns the committed parts by the number of their shard, by one listing."""
        parts: dict[int, storage.StoredObject] = {}
        for stored in self.client.list_objects(self.data_url):
            match = PART_NAME.fullmatch(stored.url.rsplit("/", 1)[-1])
            if match:
                parts[int(match[1])] = stored
        return parts

    def committed(self) -> frozenset[int]:
        """Returns the numbers of the committed shards, by one listing."""
        return frozenset(self.parts())

    def exists(self) -> bool:
        """Whether a run has begun."""
        return self.client.stat(self.run_url) is not None

    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.client.stat(self.success_url) is not None

    def remove_abandoned(self) -> None:
        """Removes temporary files of killed drivers.

        Also needed in the folder of a finished run: its driver may have been killed right after
        `_SUCCESS`.
        """
        self.client.remove_abandoned(self.url)
        self.client.remove_abandoned(self.data_url)

    def description(self) -> dict[str, Any]:
        """Returns the content of `run.json`.

        Raises:
            DatasetError: there is none, or it is not a run description.
        """
        content = self.client.read(self.run_url)[0]
        try:
            description: dict[str, Any] = json.loads(content)
            if not isinstance(description["fingerprint_keys"], dict):
                raise TypeError("fingerprint_keys")
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{self.run_url} is not a run description ({quoted(error)}); choose another "
                "--output"
            ) from error
        return description


def fingerprint(keys: Mapping[str, Any]) -> str:
    """Returns a digest of `keys` (values that JSON can hold).

    Equal keys in any order give the same digest.
    """
    canonical = _canonical(keys).encode(errors="surrogateescape")  # file names of any bytes
    return hashlib.sha256(canonical).hexdigest()[:32]


def input_keys(files: Iterable[InputFile]) -> list[list[Any]]:
    """Returns the listing in the form in which it enters the fingerprint.

    Of each file: URL without credentials, size, version, rows.
    """
    return [[redact_credentials(file.url), file.size, file.version, file.rows] for file in files]


def check_run(
    folder: RunFolder,
    keys: Mapping[str, Any],
    run_json: Mapping[str, Any],
    *,
    resume: Literal["auto", "never", "require"] = "auto",
    flag: str = "--output",
) -> bool:
    """Makes sure that `folder` belongs to the run that `keys` describe.

    The first driver writes `run.json`; a driver that loses that race compares itself with the
    winner.

    Args:
        folder: output folder.
        keys: what must be the same for results to be the same.
        run_json: other content of `run.json`; `fingerprint` and `fingerprint_keys` are added.
        resume: "never": the folder must be new; "require": it must not.
        flag: that names the folder, for messages.

    Returns:
        Whether the run existed before.

    Raises:
        ConfigError: the folder holds another run (the message has every differing key with both
            values), or `resume` forbids it.
        DatasetError: the folder cannot be written, or its store has no conditional writes.
    """
    existed = folder.exists()
    if not existed and resume == "require":
        raise ConfigError(
            f"{folder.url} holds no run to resume, but --resume require was given; check {flag}"
        )
    if not existed:
        description = {**run_json, "fingerprint": fingerprint(keys), "fingerprint_keys": dict(keys)}
        content = (json.dumps(description, indent=2) + "\n").encode()
        created = folder.client.put_if_absent(folder.run_url, content)
        if created:
            folder.client.check_conditional_writes(folder.run_url)
            return False

    if resume == "never":
        raise ConfigError(
            f"{folder.url} holds a run already, but --resume never was given; choose another {flag}"
        )
    _check_same_keys(folder, keys, flag)
    if not folder.finished():
        folder.client.check_conditional_writes(folder.run_url)
    return True


def check_part(folder: RunFolder, shard: int, expected: str) -> None:
    """Checks that the part of a shard was written by the run with fingerprint `expected`.

    Reads its footer.

    Raises:
        ConfigError: it was written by another run.
        DatasetError: it is damaged.
    """
    url = folder.part_url(shard)
    with formats.open_parquet(url, client=folder.client) as parquet:
        check_fingerprint(url, parquet.metadata, expected)


def check_fingerprint(url: str, metadata: pq.FileMetaData, expected: str) -> None:
    """Checks the fingerprint in the footer of the part at `url`.

    Raises:
        ConfigError: it was written by another run.
    """
    written_by = (metadata.metadata or {}).get(FINGERPRINT_KEY, b"").decode()
    if written_by != expected:
        raise ConfigError(
            f"{url} was written by a run with fingerprint {written_by or 'none'}, expected "
            f"{expected}; choose another --output"
        )


def _check_same_keys(folder: RunFolder, keys: Mapping[str, Any], flag: str) -> None:
    differences = key_differences(folder.description()["fingerprint_keys"], keys)
    if differences:
        raise ConfigError(
            f"{folder.url} holds a run of another configuration: {'; '.join(differences)}; "
            f"repeat the command it was started with, or choose another {flag}"
        )


def key_differences(stored: Mapping[str, Any], keys: Mapping[str, Any]) -> list[str]:
    """Returns a clause for each key of a fingerprint that differs, with both values."""
    return list(_differences("", stored, json.loads(_canonical(keys))))


def _differences(path: str, then: Any, now: Any) -> Iterable[str]:
    """Yields a clause for each value that differs, with the path of its key."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            key_path = f"{path}.{key}" if path else key
            yield from _differences(key_path, then.get(key), now.get(key))
    elif then != now:
        both_lists = isinstance(then, list) and isinstance(now, list)
        if both_lists and len(_canonical(then)) > DISPLAYED_CHARS:
            yield _list_difference(path, then, now)
        else:
            yield f"{path} was {_displayed(then)}, is {_displayed(now)}"


def _list_difference(path: str, then: list[Any], now: list[Any]) -> str:
    """Returns the lengths of two lists, or the first entry that differs."""
    if len(then) != len(now):
        old_entry = _first_absent(then, now)
        new_entry = _first_absent(now, then)
        return (
            f"{path} had {len(then)} entries (such as {_displayed(old_entry)}), has {len(now)} "
            f"(such as {_displayed(new_entry)})"
        )
    index = 0
    while then[index] == now[index]:
        index += 1
    return f"{path}[{index}] was {_displayed(then[index])}, is {_displayed(now[index])}"


def _first_absent(entries: list[Any], others: list[Any]) -> Any:
    """Returns the first entry that `others` lacks; None if it has all."""
    for entry in entries:
        if entry not in others:
            return entry
    return None


def _displayed(value: Any) -> str:
    text = _canonical(value)
    if len(text) <= DISPLAYED_CHARS:
        return text
    return text[:DISPLAYED_CHARS] + "…"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
