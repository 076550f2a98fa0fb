"""Checks that the ids of the whole input are present and unique. Reads only the id column.

Ten million ids take 80 MB: one 64-bit hash each (an integer is its own hash), sorted in place. Ids
whose hash occurs twice are read again and compared, so that a collision is never reported as a
duplicate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.read_ahead import read_ahead
from pipeline.records import InputFile, total_rows

BLOCK_ROWS = 4096
MAX_LOCATIONS = 65_536  # of repeated ids, kept for the message
MAX_NAMED = 5  # ids that a message names
Hash = Callable[[str | int], int]


@dataclass(frozen=True, slots=True)
class _Block:
    """Ids of consecutive rows of one file."""

    url: str
    rows: tuple[int, ...]  # within the file
    ids: tuple[Any, ...]

    def location(self, index: int) -> str:
        return f"row {self.rows[index]} of {self.url}"


@dataclass(frozen=True, slots=True)
class _FilePart:
    """The first rows of a file."""

    file: InputFile
    rows: int


@dataclass(frozen=True, slots=True)
class _FileHashes:
    """Hashes of the ids of a file, and the locations of some that are null."""

    hashes: npt.NDArray[np.int64]
    nulls: tuple[str, ...]


def id_hash(row_id: str | int) -> int:
    """Returns a 64-bit hash of an id.

    Integers stay themselves, because Python's hashes of -1 and -2 are the same; one beyond int64
    (a uint64 column) wraps around.
    """
    if isinstance(row_id, int):
        return (row_id + 2**63) % 2**64 - 2**63
    return hash(row_id)


def check_unique_ids(
    files: Sequence[InputFile],
    id_column: str | None,
    limit: int | None = None,
    hash_of: Hash = id_hash,
) -> None:
    """Checks that the ids of the first `limit` rows are present and unique.

    Rows that cannot be read have no id: they become error rows later, and are not checked.

    Args:
        files: of the input.
        id_column: None: ids are made from file and row, and are unique.
        limit: None: all rows.
        hash_of: 64-bit hash of an id.

    Raises:
        DatasetError: ids are null or occur more than once; names some, with file and row.
    """
    if id_column is None:
        return
    hashes = np.empty(total_rows(files), np.int64)
    count = 0
    nulls: list[str] = []

    def hash_file(part: _FilePart) -> _FileHashes:
        return _hash_ids(part, id_column, hash_of)

    for hashed in read_ahead(hash_file, _file_parts(files, limit)):
        hashes[count : count + hashed.hashes.size] = hashed.hashes
        count += hashed.hashes.size
        nulls += hashed.nulls

    if nulls:
        named = ", ".join(nulls[:MAX_NAMED])
        raise DatasetError(
            f"the id (column '{id_column}') is null in {named}; give every row an id"
        )
    repeated = _repeated(hashes[:count])
    if repeated:
        _check_duplicates(files, id_column, limit, hash_of, repeated)


def _hash_ids(part: _FilePart, id_column: str, hash_of: Hash) -> _FileHashes:
    """Returns the hashes of the ids of a file, of the rows that can be read."""
    hashes = np.empty(part.rows, np.int64)
    count = 0
    nulls: list[str] = []
    for block in _file_blocks(part, id_column):
        block_hashes: list[int] = []
        for index, row_id in enumerate(block.ids):
            if row_id is not None:
                block_hashes.append(hash_of(row_id))
            elif len(nulls) < MAX_NAMED:
                nulls.append(block.location(index))
        hashes[count : count + len(block_hashes)] = block_hashes
        count += len(block_hashes)
    return _FileHashes(hashes[:count], tuple(nulls))


def _repeated(hashes: npt.NDArray[np.int64]) -> frozenset[int]:
    """Returns the hashes that occur more than once. Sorts in place."""
    hashes.sort()
    equals_next = hashes[1:] == hashes[:-1]
    return frozenset(hashes[1:][equals_next].tolist())


def _check_duplicates(
    files: Sequence[InputFile],
    id_column: str,
    limit: int | None,
    hash_of: Hash,
    repeated: frozenset[int],
) -> None:
    """Compares the ids whose hashes are repeated."""
    duplicates: list[str] = []
    for description in _duplicates(files, id_column, limit, hash_of, repeated):
        duplicates.append(description)
        if len(duplicates) == MAX_NAMED:
            break
    if duplicates:
        raise DatasetError(
            f"ids (column '{id_column}') must be unique, but {len(repeated)} occur more than once: "
            f"{', '.join(duplicates)}; drop the duplicates or name another --id-column"
        )


def _duplicates(
    files: Sequence[InputFile],
    id_column: str,
    limit: int | None,
    hash_of: Hash,
    repeated: frozenset[int],
) -> Iterator[str]:
    """Yields each id that occurred before, with both locations."""
    first_locations: dict[object, str] = {}
    for block in _blocks(files, id_column, limit):
        for index, row_id in enumerate(block.ids):
            if row_id is None or hash_of(row_id) not in repeated:
                continue
            location = block.location(index)
            if row_id in first_locations:
                yield f"{quoted(row_id)} ({first_locations[row_id]} and {location})"
            elif len(first_locations) < MAX_LOCATIONS:  # bounded, even if every id occurs twice
                first_locations[row_id] = location


def _blocks(files: Sequence[InputFile], id_column: str, limit: int | None) -> Iterator[_Block]:
    """Yields the ids of the rows that can be read."""
    for part in _file_parts(files, limit):
        yield from _file_blocks(part, id_column)


def _file_parts(files: Sequence[InputFile], limit: int | None) -> Iterator[_FilePart]:
    """Yields the files that have some of the first `limit` rows."""
    remaining = total_rows(files)
    if limit is not None:
        remaining = limit
    for file in files:
        rows = min(file.rows, remaining)
        remaining -= rows
        if rows:
            yield _FilePart(file, rows)


def _file_blocks(part: _FilePart, id_column: str) -> Iterator[_Block]:
    file = part.file
    source = formats.SourceFile(file.url, file.version, file.size)
    with formats.open_cursor(source, (id_column,), pa.schema([])) as cursor:
        for start in range(0, part.rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, part.rows - start)
            yield _read_block(cursor, file.url, id_column, start, count)


def _read_block(cursor: formats.Cursor, url: str, id_column: str, start: int, count: int) -> _Block:
    block = cursor.take(start, count)
    ids = block.values[id_column]
    readable_rows: list[int] = []
    readable_ids: list[Any] = []
    for index in range(count):
        if index not in block.faults:
            readable_rows.append(start + index)
            readable_ids.append(ids[index])
    return _Block(url=url, rows=tuple(readable_rows), ids=tuple(readable_ids))
