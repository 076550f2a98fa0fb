"""Ids of the whole input -> nothing, or an error that names the duplicates.

Reads the id column only.

Ten million ids take 80 MB: a 64-bit hash each (integers are their own), sorted in place. Only ids
whose hash occurs twice are looked at again, so that a collision is never reported as a duplicate.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.records import InputFile

BLOCK_ROWS = 65_536
NAMED = 5  # duplicates that the message names


def check_unique_ids(
    files: Sequence[InputFile], id_column: str | None, limit: int | None = None
) -> None:
    """Checks that the ids of the first `limit` rows (None: all) are there and are unique.

    Lines and bytes that cannot be read have no id; they become error rows later and are not counted
    here.

    Raises:
        DatasetError: ids are null or occur more than once; names some, with file and row.
    """
    if id_column is None:
        return
    hashes = np.empty(sum(file.rows for file in files), np.int64)
    count = 0
    nulls: list[str] = []
    for url, first_row, ids in _blocks(files, id_column, limit):
        nulls += [f"row {first_row + row} of {url}" for row, value in ids if value is None][
            : NAMED - len(nulls)
        ]
        known = [value for _, value in ids if value is not None]
        hashes[count : count + len(known)] = np.fromiter(map(_hash, known), np.int64, len(known))
        count += len(known)
    if nulls:
        raise DatasetError(
            f"the id (column '{id_column}') is null in {', '.join(nulls)}; give every row an id"
        )
    hashes = hashes[:count]
    hashes.sort()
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if suspects.size:
        _report(files, id_column, limit, suspects)


def _report(files: Sequence[InputFile], id_column: str, limit: int | None, suspects: Any) -> None:
    first_places: dict[object, str] = {}
    found: list[str] = []
    for url, first_row, ids in _blocks(files, id_column, limit):
        known = [(row, value) for row, value in ids if value is not None]
        doubtful = np.isin(
            np.fromiter((_hash(value) for _, value in known), np.int64, len(known)), suspects
        )
        for index in np.flatnonzero(doubtful):
            row, value = known[int(index)]
            place = f"row {first_row + row} of {url}"
            if value in first_places:
                found.append(f"{value!r} ({first_places[value]} and {place})")
            elif len(first_places) < BLOCK_ROWS:  # bounded, even when every id is there twice
                first_places[value] = place
            if len(found) == NAMED:
                break
        if len(found) == NAMED:
            break
    if found:
        raise DatasetError(
            f"ids (column '{id_column}') must be unique, but {suspects.size} occur more than once: "
            f"{', '.join(found)}; "
            "drop the duplicates or name another --id-column"
        )


def _blocks(
    files: Sequence[InputFile], id_column: str, limit: int | None
) -> Iterator[tuple[str, int, list[tuple[int, Any]]]]:
    """Yields file, its first row and (row within the block, id) of the rows that can be read."""
    left = sum(file.rows for file in files) if limit is None else limit
    for file in files:
        rows = min(file.rows, left)
        left -= rows
        if not rows:
            continue
        with formats.open_cursor(file.url, (id_column,), pa.schema([])) as cursor:
            for start in range(0, rows, BLOCK_ROWS):
                block = cursor.take(start, min(BLOCK_ROWS, rows - start))
                ids = enumerate(block.values[id_column])
                yield (
                    file.url,
                    start,
                    [(row, value) for row, value in ids if row not in block.faults],
                )


def _hash(value: str | int) -> int:
    # An integer beyond int64 (uint64 columns) wraps; Python's hash of -1 and -2 is the same, hence
    # integers stay themselves.
    return ((value + 2**63) % 2**64) - 2**63 if isinstance(value, int) else hash(value)
