"""One input file -> its number of rows, its columns, and row ranges read forward.

Parquet and JSON lines; no shards, no runs.

A cursor reads ranges of one file in ascending order and never goes back: every row group is decoded
once at most, however many shards it feeds, and no more than one range and one batch is held. In a
JSON-lines file a row is a line that is not blank.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.json_types import JsonColumns, fitted
from pipeline.storage.redaction import redact_credentials

JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
BATCH_ROWS = 4096
INT32 = np.iinfo(np.int32)
# read per column at a time: one range request; bounds memory for huge row groups
COLUMN_BUFFER_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Rows:
    """A row range as read.

    `faults` maps positions within the range to the reason why that row cannot be used.
    """

    values: dict[str, list[Any]]  # the columns that the run itself reads, as Python values
    passthrough: pa.Table
    faults: dict[int, str] = field(default_factory=dict)


class Cursor(Protocol):
    """Reads ranges of one file, in ascending order."""

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on, which must not lie before the end of the last range taken."""
        ...


def is_jsonl(url: str) -> bool:
    """Whether the file is read as JSON lines; everything else is Parquet."""
    return url.lower().endswith(JSONL_SUFFIXES)


@contextmanager
def open_parquet(
    url: str, version: str = "", client: storage.Client = storage.DEFAULT_CLIENT
) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file by its footer; `version` as in `storage.open_object`.

    Raises:
        DatasetError: missing, not readable, or damaged; also for damage that shows only while rows are read.
    """
    with client.open_object(url, version=version) as opened:
        try:
            parquet = pq.ParquetFile(
                cast(Any, opened), buffer_size=COLUMN_BUFFER_BYTES, pre_buffer=False
            )
            yield parquet
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's or the network's trouble, not the file's: storage explains it
            reason = " ".join(str(error).split())  # Arrow's may have several lines
            shown = redact_credentials(url)
            raise DatasetError(
                f"{shown} is not a readable Parquet file: {reason}; write it again or leave it out"
            ) from error


def count_rows(
    url: str, limit: int | None = None, client: storage.Client = storage.DEFAULT_CLIENT
) -> int:
    """Returns the rows of a file: from the footer for Parquet, by counting lines (up to `limit`) for JSON lines.

    Raises:
        DatasetError: missing, not readable, or damaged.
    """
    if not is_jsonl(url):
        with open_parquet(url, client=client) as parquet:
            return int(parquet.metadata.num_rows)
    with client.open_object(url, sequential=True) as opened:
        return sum(1 for _ in islice(_lines(opened), limit))


def parquet_schema(url: str, client: storage.Client = storage.DEFAULT_CLIENT) -> pa.Schema:
    """Returns the columns of a Parquet file from its footer.

    Raises DatasetError like `open_parquet`.
    """
    with open_parquet(url, client=client) as parquet:
        return parquet.schema_arrow.remove_metadata()


def jsonl_columns(url: str, rows: int) -> JsonColumns:
    """Returns the columns of the first `rows` rows of a JSON-lines file and their types.

    Lines that do not parse have none.
    """
    columns = JsonColumns()
    with storage.open_object(url, sequential=True) as opened:
        lines = islice(_lines(opened), rows)
        while block := list(islice(lines, BATCH_ROWS)):
            parsed = [_parse(line, number, url) for number, line in block]
            columns = columns.merged([record for record in parsed if isinstance(record, dict)])
    return columns


@contextmanager
def open_cursor(
    url: str,
    inputs: Sequence[str],
    passthrough: pa.Schema,
    version: str = "",
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[Cursor]:
    """Opens a file for reading ranges: columns `inputs` as Python values, those of `passthrough` (file's names) as Arrow.

    `version` as in `storage.open_object`.

    Raises:
        DatasetError: missing, not readable, or damaged.
    """
    with ExitStack() as stack:
        if is_jsonl(url):
            opened = stack.enter_context(client.open_object(url, sequential=True, version=version))
            yield _JsonCursor(url, opened, tuple(inputs), passthrough)
        else:
            parquet = stack.enter_context(open_parquet(url, version, client))
            yield _ParquetCursor(url, parquet, tuple(inputs), passthrough)


class _ParquetCursor:
    def __init__(
        self, url: str, parquet: pq.ParquetFile, inputs: tuple[str, ...], passthrough: pa.Schema
    ) -> None:
        self._url, self._parquet, self._inputs, self._passthrough = (
            url,
            parquet,
            inputs,
            passthrough,
        )
        groups = [
            parquet.metadata.row_group(index).num_rows
            for index in range(parquet.metadata.num_row_groups)
        ]
        self._group_starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
        self._position = 0  # of the first row that has not been given out
        self._rest: pa.RecordBatch | None = None  # read, not given out
        self._batches: Iterator[pa.RecordBatch] | None = None

    def take(self, first_row: int, rows: int) -> Rows:
        last = int(self._group_starts[-1])
        if first_row + rows > last:
            raise DatasetError(
                f"{self._url} has {last} rows, and had {first_row + rows} or more when it was "
                "listed; it changed"
            )
        self._skip_to(first_row)
        parts: list[pa.RecordBatch] = []
        while rows:
            part = self._next(rows)
            rows -= part.num_rows
            parts.append(part)
        table = pa.Table.from_batches(parts)
        values: dict[str, list[Any]] = {}
        faults: dict[int, str] = {}
        for name in self._inputs:
            values[name], unreadable = python_values(table.column(name))
            faults.update(dict.fromkeys(unreadable, f"column '{name}' is not valid UTF-8"))
        return Rows(values, table.select(self._passthrough.names).cast(self._passthrough), faults)

    def _skip_to(self, row: int) -> None:
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        if self._batches is None or int(self._group_starts[group]) > self._position:
            # What lies between is not read: this is what makes a resumed run or a partition cheap.
            later = list(range(group, self._parquet.metadata.num_row_groups))
            columns = list(dict.fromkeys([*self._inputs, *self._passthrough.names]))
            self._batches = self._parquet.iter_batches(
                batch_size=BATCH_ROWS, row_groups=later, columns=columns
            )
            self._position, self._rest = int(self._group_starts[group]), None
        while self._position < row:
            self._next(row - self._position)

    def _next(self, rows: int) -> pa.RecordBatch:
        """Returns the next rows, `rows` at most."""
        assert self._batches is not None
        batch = self._rest if self._rest is not None else next(self._batches)
        taken = batch.slice(0, rows)
        self._rest = batch.slice(rows) if batch.num_rows > rows else None
        self._position += taken.num_rows
        return taken


class _JsonCursor:
    def __init__(
        self, url: str, opened: BinaryIO, inputs: tuple[str, ...], passthrough: pa.Schema
    ) -> None:
        self._url, self._inputs, self._passthrough = url, inputs, passthrough
        self._lines = _lines(opened)
        self._position = 0

    def take(self, first_row: int, rows: int) -> Rows:
        lines = list(
            islice(self._lines, first_row - self._position, first_row - self._position + rows)
        )
        if len(lines) < rows:
            raise DatasetError(
                f"{self._url} has fewer than the {first_row + rows} rows that it had when it was "
                "listed; it changed"
            )
        self._position = first_row + rows
        parsed = [_parse(line, number, self._url) for number, line in lines]
        faults = {row: record for row, record in enumerate(parsed) if isinstance(record, str)}
        records: list[dict[str, Any]] = [
            record if isinstance(record, dict) else {} for record in parsed
        ]
        columns = []
        for column in self._passthrough:
            array, misfits = fitted([record.get(column.name) for record in records], column)
            columns.append(array)
            faults.update(dict.fromkeys(misfits, f"column '{column.name}' is no {column.type}"))
        values = {name: [record.get(name) for record in records] for name in self._inputs}
        return Rows(values, pa.Table.from_arrays(columns, schema=self._passthrough), faults)


def python_values(column: "pa.ChunkedArray[Any]") -> tuple[list[Any], list[int]]:
    """Returns a column as Python values, bytes as text, and the positions whose bytes are not UTF-8 (their value is None)."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_list_of_ints(column.type):
        return [row for chunk in column.chunks for row in _int_lists(chunk)], []
    try:
        values = column.to_pylist()
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            values = [None if value is None else value.decode() for value in values]
        return values, []
    except UnicodeDecodeError:
        return _readable(column)


def _readable(column: "pa.ChunkedArray[Any]") -> tuple[list[Any], list[int]]:
    values: list[Any] = []
    unreadable = []
    for row, scalar in enumerate(column):
        try:
            value = scalar.as_py()
            values.append(value.decode() if isinstance(value, bytes) else value)
        except UnicodeDecodeError:
            values.append(None)
            unreadable.append(row)
    return values, unreadable


def _is_list_of_ints(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(
        kind.value_type
    )


def _int_lists(chunk: Any) -> list[Any]:
    """What `to_pylist` returns, each row as a compact array: one conversion for the chunk, then slices; no id becomes an object.

    Lists where an item is null or beyond int32: what is wrong with such a row is told from them.
    """
    offsets = chunk.offsets.to_numpy()
    ids = chunk.values.slice(offsets[0], offsets[-1] - offsets[0])
    values = ids.to_numpy(zero_copy_only=False)
    if ids.null_count or (
        values.size and not INT32.min <= values.min() <= values.max() <= INT32.max
    ):
        return cast(list[Any], chunk.to_pylist())
    flat = array("i")
    flat.frombytes(np.ascontiguousarray(values, np.int32).tobytes())
    bounds = (offsets - offsets[0]).tolist()
    rows: list[Any] = [flat[start:stop] for start, stop in pairwise(bounds)]
    if chunk.null_count:
        return [
            None if null else row
            for row, null in zip(rows, chunk.is_null().to_pylist(), strict=True)
        ]
    return rows


def _lines(opened: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank, with their number in the file, counted from 1."""
    return ((number, line) for number, line in enumerate(opened, start=1) if not line.isspace())


def _parse(line: bytes, number: int, url: str) -> dict[str, Any] | str:
    """Returns the line's object, or what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"line {number} of {redact_credentials(url)} is not JSON: {error}"
    if isinstance(record, dict):
        return record
    return f"line {number} of {redact_credentials(url)} is not a JSON object but {type(record).__name__}"
