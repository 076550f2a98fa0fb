"""The input of a run: its files with their row counts, and the shards that they are cut into.

Reads listings and footers; of JSON lines, all lines.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.records import InputFile, Shard

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
