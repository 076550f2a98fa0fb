"""Input URL -> files -> shards -> the shards that are still to do.

It reads footers and listings, never rows of text.

A committed part is the only record of finished work: what remains is the plan less the listing of
the output folder.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.output.run_folder import RunFolder, check_part, check_run, fingerprint, input_keys
from pipeline.records import InputFile, Shard

__all__ = [
    "RunFolder",
    "check_run",
    "fingerprint",
    "finish",
    "input_keys",
    "list_input",
    "plan_shards",
    "remaining",
]

READS_AT_ONCE = 16


def list_input(url: str, limit: int | None = None) -> tuple[InputFile, ...]:
    """Lists the input and counts its rows: a file, a glob, or a folder (at any depth, its `.parquet` and `.jsonl` files).

    Args:
        url: any fsspec URL. In folders, names that start with `_` or `.` are passed over, as are files of other kinds.
        limit: how many rows are wanted in all: files beyond are not opened and not part of the result.

    Raises:
        DatasetError: nothing there, no rows, no permission, or a damaged file (which is named).
    """
    found = _wanted(url)
    if not found:
        raise DatasetError(
            f"no input at {url}: nothing is there, or no .parquet or .jsonl file; check the path"
        )
    files: list[InputFile] = []
    rows = 0
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for start in range(0, len(found), READS_AT_ONCE):
            some = found[start : start + READS_AT_ONCE]
            for stored, count in zip(
                some,
                pool.map(lambda stored: formats.count_rows(stored.url, limit), some),
                strict=True,
            ):
                if limit is None or rows < limit:
                    files.append(InputFile(stored.url, stored.size, stored.version, count))
                    rows += count
            if limit is not None and rows >= limit:
                break
    if not rows:
        raise DatasetError(f"the input at {url} has no rows ({len(files)} files)")
    return tuple(files)


def plan_shards(
    files: Sequence[InputFile], shard_rows: int, limit: int | None = None
) -> tuple[Shard, ...]:
    """Cuts the first `limit` rows (None: all) into shards of `shard_rows` rows.

    A shard never spans files.
    """
    if shard_rows < 1 or (limit is not None and limit < 1):
        raise ConfigError(
            f"--shard-rows and --limit must be at least 1, got {shard_rows} and {limit}"
        )
    left = sum(file.rows for file in files) if limit is None else limit
    shards: list[Shard] = []
    for file in files:
        end = min(file.rows, left)
        left -= end
        for first_row in range(0, end, shard_rows):
            shards.append(
                Shard(
                    len(shards),
                    file.url,
                    first_row,
                    min(shard_rows, end - first_row),
                    version=file.version,
                )
            )
    return tuple(shards)


def remaining(
    shards: Sequence[Shard],
    folder: RunFolder,
    fingerprint: str,
    *,
    partition: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
) -> tuple[Shard, ...]:
    """Returns the shards of this partition that are still to do: plan less listing.

    The listing is one request, whatever the number of shards; of the committed parts one footer is
    read, to be sure that they are this run's (`check_run` has compared the rest).

    Args:
        shards: the whole plan.
        folder: output folder.
        fingerprint: of this run.
        partition: (I, N): shards with number ≡ I mod N.
        retry_failed: return committed shards too, if rows of them failed, with `only` naming these rows.

    Raises:
        ConfigError: the folder holds parts of another run.
    """
    # of a finished run, too: its driver may have been killed right after _SUCCESS
    folder.client.remove_abandoned(folder.url)
    folder.client.remove_abandoned(folder.data_url)
    if folder.finished() and not retry_failed:
        return ()
    committed = folder.committed()
    strangers = committed - {shard.number for shard in shards}
    if strangers:
        raise ConfigError(
            f"{folder.part_url(min(strangers))} does not belong to this run of {len(shards)} "
            "shards; choose another --output"
        )
    if committed:
        check_part(folder, min(committed), fingerprint)
    index, count = partition
    own = [shard for shard in shards if shard.number % count == index]
    todo = [shard for shard in own if shard.number not in committed]
    if retry_failed:
        todo += _with_failures(
            [shard for shard in own if shard.number in committed], folder, fingerprint
        )
    return tuple(sorted(todo, key=lambda shard: shard.number))


def finish(folder: RunFolder, shards: Iterable[Shard]) -> bool:
    """Marks the run as complete if every shard, of all partitions, is committed.

    Called by every driver at its end.

    Returns:
        Whether the run is complete; False: other drivers are still at it.
    """
    if not {shard.number for shard in shards} <= folder.committed():
        return False
    folder.client.put_if_absent(folder.success_url, b"")  # False: another driver was as fast
    return True


def _wanted(url: str) -> list[storage.StoredObject]:
    found = storage.list_objects(url)
    root = storage.canonical(url)
    if [stored.url for stored in found] == [root]:
        return list(found)  # a file that was named: whatever it is called
    inside = any(stored.url.startswith(root + "/") for stored in found)  # a folder, not a glob
    return [
        stored
        for stored in found
        if _is_input(stored, stored.url[len(root) + 1 :] if inside else stored.url, folder=inside)
    ]


def _is_input(stored: storage.StoredObject, path: str, *, folder: bool) -> bool:
    parts = path.split("/") if folder else path.split("/")[-1:]
    if any(part.startswith(("_", ".")) for part in parts):
        return False
    known = parts[-1].lower().endswith(formats.JSONL_SUFFIXES + formats.PARQUET_SUFFIXES)
    return known or (not folder and stored.size > 0)


def _with_failures(committed: Sequence[Shard], folder: RunFolder, fingerprint: str) -> list[Shard]:
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        failed = pool.map(lambda shard: _failed_rows(folder, shard, fingerprint), committed)
        return [
            replace(shard, only=rows) for shard, rows in zip(committed, failed, strict=True) if rows
        ]


def _failed_rows(folder: RunFolder, shard: Shard, fingerprint: str) -> tuple[int, ...]:
    """Returns the rows (within the shard) of which at least one sample failed.

    Reads two narrow columns.
    """
    check_part(folder, shard.number, fingerprint)
    with formats.open_parquet(folder.part_url(shard.number), client=folder.client) as parquet:
        table = parquet.read(columns=["sample_index", "status"])
    # rows are in order, each with its samples from 0 on
    row = np.cumsum(table["sample_index"].to_numpy() == 0) - 1
    failed = pc.equal(table["status"], pa.scalar("error")).to_numpy()
    return tuple(np.unique(row[failed]).tolist())
