"""Row groups of a Parquet file → record batches of bounded size.

What a row group takes in memory follows from its footer: the number of its values, and the bytes of
its pages. One thing does not: a dictionary holds a text once, however many rows refer to it. Where
that would not fit, the text is read as a dictionary, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.input.formats.format import BATCH_BYTES, BATCH_ROWS
from pipeline.input.limits import MAX_RANGE_BYTES, MAX_VALUE_BYTES

# A row group that is this many times as large in memory as in its pages, beyond what the rows of a
# shard may have, cannot be read: one row may have all of it.
MAX_EXPANSION = 100_000
SMALL_CHUNK_BYTES = 64 * 2**10  # in whose dictionary no text is long
_TYPE_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_INDEX_BYTES = 4

OpenFile = Callable[[Sequence[str]], pq.ParquetFile]  # with some columns read as dictionaries


@dataclass(frozen=True, slots=True)
class RowGroup:
    """How one row group is read."""

    number: int
    batch_rows: int
    dictionaries: tuple[str, ...]  # columns of text that are read as dictionaries, by path
    fault: str | None  # why none of its rows can be read


def plan_row_group(
    file: pq.ParquetFile, number: int, columns: Sequence[str], open_file: OpenFile
) -> RowGroup:
    """Decides how a row group is read.

    Args:
        file: an open file.
        number: of the row group.
        columns: that are read.
        open_file: opens the file again.
    """
    metadata = file.metadata.row_group(number)
    names = frozenset(columns)
    row_bytes = 0.0
    dictionaries: list[str] = []
    for index in range(metadata.num_columns):
        chunk = metadata.column(index)
        if not _belongs_to(chunk.path_in_schema, names):
            continue
        chunk_bytes = _decoded_bytes(chunk, file.schema.column(index))
        fault = _fault(chunk, chunk_bytes, metadata.num_rows)
        if fault is not None:
            return RowGroup(number, BATCH_ROWS, (), fault)
        row_bytes += chunk_bytes / max(metadata.num_rows, 1)
        if _needs_dictionary(chunk, metadata.num_rows, number, open_file):
            dictionaries.append(chunk.path_in_schema)

    batch_rows = BATCH_ROWS
    if row_bytes > 0:
        batch_rows = min(max(int(BATCH_BYTES / row_bytes), 1), BATCH_ROWS)
    return RowGroup(number, batch_rows, tuple(dictionaries), None)


def read_batches(
    group: RowGroup, columns: Sequence[str], open_file: OpenFile
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a row group."""
    file = open_file(group.dictionaries)
    return file.iter_batches(
        batch_size=group.batch_rows, row_groups=[group.number], columns=list(columns)
    )


def _belongs_to(path: str, names: frozenset[str]) -> bool:
    """Whether a leaf belongs to one of the columns; their names may have dots."""
    if path in names:
        return True
    prefix = ""
    for part in path.split("."):
        prefix += part
        if prefix in names:
            return True
        prefix += "."
    return False


def _decoded_bytes(chunk: Any, leaf: Any) -> int:
    """Returns the bytes of a column chunk in memory, texts as a dictionary."""
    if chunk.physical_type == "BYTE_ARRAY":
        return int(chunk.num_values) * _INDEX_BYTES + int(chunk.total_uncompressed_size)
    width = _TYPE_BYTES.get(chunk.physical_type, leaf.length)
    return int(chunk.num_values) * int(width)


def _fault(chunk: Any, chunk_bytes: int, rows: int) -> str | None:
    is_nested = chunk.num_values > rows
    mean_bytes = chunk_bytes / max(rows, 1)
    page_bytes = max(chunk.total_uncompressed_size, 1)
    expands = chunk_bytes > MAX_EXPANSION * page_bytes and chunk_bytes > MAX_RANGE_BYTES
    if mean_bytes > MAX_VALUE_BYTES or (is_nested and expands):
        return (
            f"column '{chunk.path_in_schema}' has {chunk_bytes:,} bytes in the {rows:,} rows of "
            f"its row group, more than the {MAX_VALUE_BYTES:,} that one may have; shorten its "
            "values or write smaller row groups"
        )
    return None


def _needs_dictionary(chunk: Any, rows: int, number: int, open_file: OpenFile) -> bool:
    """Whether texts that many values share would not fit when each value has its own."""
    is_text = chunk.physical_type == "BYTE_ARRAY"
    if not is_text or not chunk.has_dictionary_page:
        return False
    if chunk.total_uncompressed_size < SMALL_CHUNK_BYTES:
        longest = int(chunk.total_uncompressed_size)
    else:
        longest = _longest_text(chunk.path_in_schema, number, open_file)

    if chunk.num_values > rows:  # lists: one row may have all values
        return longest * int(chunk.num_values) > MAX_RANGE_BYTES
    return longest * min(rows, BATCH_ROWS) > 4 * BATCH_BYTES


def _longest_text(path: str, number: int, open_file: OpenFile) -> int:
    """Returns the bytes of the longest text of a chunk's dictionary.

    The first row is read: the whole dictionary comes with it.
    """
    file = open_file([path])
    batches = file.iter_batches(batch_size=1, row_groups=[number], columns=[path])
    longest = 0
    for column in next(batches).columns:
        longest = max(longest, _longest_entry(column))
    return longest


def _longest_entry(values: Any) -> int:
    if pa.types.is_dictionary(values.type):
        longest: Any = pc.max(pc.binary_length(values.dictionary))
        return int(longest.as_py() or 0)
    if pa.types.is_struct(values.type):
        children = [values.field(index) for index in range(values.type.num_fields)]
    elif pa.types.is_map(values.type):
        children = [values.keys, values.items]
    elif pa.types.is_nested(values.type):
        children = [values.values]
    else:
        return 0
    return max((_longest_entry(child) for child in children), default=0)
