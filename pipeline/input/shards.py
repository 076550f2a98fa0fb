"""The input of a run: its files with their row counts, and the shards that they are cut into.

Reads listings and footers; of JSON lines, all lines.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.records import InputFile, Shard, total_rows

READS_AT_ONCE = 16


def list_input(url: str, limit: int | None = None) -> tuple[InputFile, ...]:
    """Lists the input and counts its rows.

    Args:
        url: a file, a glob, or a folder at any fsspec URL. In a folder, files at any depth are
            read if their suffix is that of a format; names that begin with `_` or `.` are skipped.
        limit: number of rows that are needed in all: files beyond are not opened and not part of
            the result.

    Raises:
        DatasetError: nothing there, no rows, no permission, or a damaged file (which is named).
    """
    objects = _input_objects(url)
    if not objects:
        raise DatasetError(
            f"no input at {url}: nothing is there, or no .parquet or .jsonl file; check the path"
        )
    files: list[InputFile] = []
    rows = 0
    for file in _count_rows(objects, limit):
        files.append(file)
        rows += file.rows
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
    rows_to_plan = total_rows(files)
    if limit is not None:
        rows_to_plan = limit

    shards: list[Shard] = []
    for file in files:
        file_rows = min(file.rows, rows_to_plan)
        rows_to_plan -= file_rows
        for first_row in range(0, file_rows, shard_rows):
            shard = Shard(
                number=len(shards),
                url=file.url,
                first_row=first_row,
                rows=min(shard_rows, file_rows - first_row),
                version=file.version,
            )
            shards.append(shard)
    return tuple(shards)


def _input_objects(url: str) -> list[storage.StoredObject]:
    """Returns the objects at `url` that are input files."""
    objects = storage.list_objects(url)
    root = storage.canonical(url)
    if len(objects) == 1 and objects[0].url == root:
        return list(objects)  # the URL of one file, whatever its suffix
    folder = f"{root}/"
    if any(stored.url.startswith(folder) for stored in objects):
        return [stored for stored in objects if _is_folder_input(stored.url.removeprefix(folder))]
    return list(filter(_is_glob_input, objects))


def _is_folder_input(path: str) -> bool:
    """Whether a file of an input folder is read; `path` is below the folder."""
    hidden = any(name.startswith(("_", ".")) for name in path.split("/"))
    return not hidden and path.lower().endswith(formats.SUFFIXES)


def _is_glob_input(stored: storage.StoredObject) -> bool:
    """Whether a file that a glob matches is read.

    It may have any suffix; empty files of other suffixes are markers of folders.
    """
    name = stored.url.rpartition("/")[2]
    if name.startswith(("_", ".")):
        return False
    return stored.size > 0 or name.lower().endswith(formats.SUFFIXES)


def _count_rows(objects: Sequence[storage.StoredObject], limit: int | None) -> Iterator[InputFile]:
    """Yields the files with their number of rows, a few of them opened ahead."""
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        for start in range(0, len(objects), READS_AT_ONCE):
            block = objects[start : start + READS_AT_ONCE]
            counts = pool.map(lambda stored: formats.count_rows(stored.url, limit), block)
            for stored, rows in zip(block, counts, strict=True):
                yield InputFile(stored.url, stored.size, stored.version, rows)
