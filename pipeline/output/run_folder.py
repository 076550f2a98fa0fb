"""A run's output folder: where its objects are, and whether it is the same run. It knows no rows.

run.json                configuration and fingerprint; created once, by the driver that comes first
data/part-00017.parquet one committed shard; the listing of data/ is the only record of finished
work report.json, .html      written at the end _SUCCESS                created last, by whoever
finds every shard committed
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials

PART_NAME = re.compile(r"part-(\d{5,})\.parquet")
SHOWN = 200  # characters of a value in a message


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

    def committed(self) -> frozenset[int]:
        """Returns the numbers of the committed shards, by one listing."""
        names = (
            stored.url.rsplit("/", 1)[-1] for stored in self.client.list_objects(self.data_url)
        )
        return frozenset(int(match[1]) for match in map(PART_NAME.fullmatch, names) if match)

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
        """Returns what `run.json` tells.

        Raises DatasetError when there is none, or something else of this name.
        """
        try:
            found: dict[str, Any] = json.loads(self.client.read(self.run_url)[0])
            if not isinstance(found["fingerprint_keys"], dict):
                raise TypeError("fingerprint_keys")
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{self.run_url} is not a run description ({error!r}); choose another --output"
            ) from error
        return found


def fingerprint(keys: Mapping[str, Any]) -> str:
    """Returns a digest of `keys` (values that JSON can hold).

    Equal keys in any order give the same digest.
    """
    return hashlib.sha256(_canonical(keys).encode()).hexdigest()[:32]


def input_keys(files: Iterable[InputFile]) -> list[list[Any]]:
    """Returns the listing in the form in which it enters the fingerprint: url (no credentials), size, version, rows per file."""
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

    The first driver writes `run.json`.

    Args:
        folder: output folder.
        keys: what must be the same for results to be the same.
        run_json: what else `run.json` tells; `fingerprint` and `fingerprint_keys` are added.
        resume: "never": the folder must be new; "require": it must not.
        flag: that names the folder, for messages.

    Returns:
        Whether the run existed before.

    Raises:
        ConfigError: the folder holds another run (names every differing key with both values), or `resume` forbids.
    """
    found = folder.client.stat(folder.run_url) is not None
    if not found and resume == "require":
        raise ConfigError(
            f"{folder.url} holds no run to resume, but --resume require was given; check {flag}"
        )
    if not found:
        content = {**run_json, "fingerprint": fingerprint(keys), "fingerprint_keys": dict(keys)}
        if folder.client.put_if_absent(
            folder.run_url, (json.dumps(content, indent=2) + "\n").encode()
        ):
            return False
    if resume == "never":
        raise ConfigError(
            f"{folder.url} holds a run already, but --resume never was given; choose another {flag}"
        )
    _compare(folder, keys, flag)
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
        found = (parquet.metadata.metadata or {}).get(FINGERPRINT_KEY, b"").decode()
    if found != expected:
        raise ConfigError(
            f"{url} was written by a run with fingerprint {found or 'none'}, expected {expected}; "
            "choose another --output"
        )


def _compare(folder: RunFolder, keys: Mapping[str, Any], flag: str) -> None:
    stored = folder.description()["fingerprint_keys"]
    differing = list(_differences("", stored, json.loads(_canonical(keys))))
    if differing:
        raise ConfigError(
            f"{folder.url} holds a run of another configuration: {'; '.join(differing)}; "
            f"repeat the command it was started with, or choose another {flag}"
        )


def _differences(path: str, then: Any, now: Any) -> Iterable[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(f"{path}.{key}" if path else key, then.get(key), now.get(key))
    elif then != now:
        if isinstance(then, list) and isinstance(now, list) and len(_canonical(then)) > SHOWN:
            yield _list_difference(path, then, now)
        else:
            yield f"{path} was {_shown(then)}, is {_shown(now)}"


def _list_difference(path: str, then: list[Any], now: list[Any]) -> str:
    if len(then) != len(now):
        gone = [entry for entry in then if entry not in now][:1] or [None]
        new = [entry for entry in now if entry not in then][:1] or [None]
        return f"{path} had {len(then)} entries (such as {_shown(gone[0])}), has {len(now)} (such as {_shown(new[0])})"
    index = next(
        index for index, (one, other) in enumerate(zip(then, now, strict=True)) if one != other
    )
    return f"{path}[{index}] was {_shown(then[index])}, is {_shown(now[index])}"


def _shown(value: Any) -> str:
    text = _canonical(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
