"""Parquet: the footer has the schema and the number of rows; only needed row groups are read."""

from collections.abc import Iterator, KeysView, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.input.formats.format import BATCH_ROWS, FILES_AT_ONCE, Rows
from pipeline.input.formats.python_values import python_values
from pipeline.input.json_text import column_to_json_text, is_json_text
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials

# Read per column at once, by one range request; bounds memory for huge row groups.
COLUMN_BUFFER_BYTES = 4 * 2**20


class Parquet:
    """The format of .parquet files, and of files without a known suffix."""

    name = "Parquet"
    suffixes = (".parquet", ".pq")

    def count_rows(self, url: str, limit: int | None, client: storage.Client) -> int:
        """Returns the number of all rows, which the footer has: `limit` saves nothing."""
        with open_parquet(url, client=client) as file:
            return int(file.metadata.num_rows)

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns in the order of the first file; the order of others may differ."""
        first_url = files[0].url
        types: dict[str, dict[pa.DataType | None, str]] = {}
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            schemas = pool.map(_column_types, [file.url for file in files])
            for file, file_types in zip(files, schemas, strict=True):
                if not types:
                    types = {name: {} for name in file_types}
                _check_same_names(types.keys(), file_types.keys(), first_url, file.url)
                for name, data_type in file_types.items():
                    types[name].setdefault(data_type, file.url)
        return FileColumns(types)

    @contextmanager
    def open_cursor(
        self,
        url: str,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        version: str,
        client: storage.Client,
    ) -> "Iterator[ParquetCursor]":
        """Opens the file by its footer."""
        with open_parquet(url, version, client) as file:
            yield ParquetCursor(url, file, inputs, passthrough)


class ParquetCursor:
    """Reads row ranges of an open Parquet file; row groups between ranges are not decoded."""

    def __init__(
        self, url: str, file: pq.ParquetFile, inputs: Sequence[str], passthrough: pa.Schema
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        self._url = url
        self._file = file
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._columns = list(dict.fromkeys([*inputs, *passthrough.names]))

        groups = range(file.metadata.num_row_groups)
        group_rows = [file.metadata.row_group(group).num_rows for group in groups]
        # The first row of each group, and the number of all rows at the end.
        self._group_starts = np.concatenate([[0], np.cumsum(group_rows, dtype=np.int64)])
        self._position = 0  # of the next row
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._remainder: pa.RecordBatch | None = None  # of the last batch, not returned yet

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on."""
        file_rows = int(self._group_starts[-1])
        end = first_row + rows
        if end > file_rows:
            raise DatasetError(
                f"{self._url} has {file_rows} rows, and had {end} or more when it was listed; it "
                "changed"
            )

        self._skip_to(first_row)
        batches: list[pa.RecordBatch] = []
        while self._position < end:
            batches.append(self._next_rows(end - self._position))
        table = pa.Table.from_batches(batches)

        values: dict[str, list[Any]] = {}
        faults: dict[int, str] = {}
        for name in self._inputs:
            values[name], unreadable = python_values(table.column(name))
            for row in unreadable:
                faults[row] = f"column '{name}' is not valid UTF-8"
        passthrough = _converted(table, self._passthrough)
        return Rows(values, passthrough, faults)

    def _skip_to(self, row: int) -> None:
        """Moves to `row`; row groups before its own are not read.

        This is what makes a resumed run or a partition cheap.
        """
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        group_start = int(self._group_starts[group])
        if self._batches is None or group_start > self._position:
            self._batches = self._file.iter_batches(
                batch_size=BATCH_ROWS,
                row_groups=list(range(group, self._file.metadata.num_row_groups)),
                columns=self._columns,
            )
            self._position = group_start
            self._remainder = None
        while self._position < row:
            self._next_rows(row - self._position)

    def _next_rows(self, at_most: int) -> pa.RecordBatch:
        assert self._batches is not None
        batch = self._remainder
        if batch is None:
            batch = next(self._batches)
        rows = batch.slice(0, at_most)
        self._remainder = None
        if batch.num_rows > at_most:
            self._remainder = batch.slice(at_most)
        self._position += rows.num_rows
        return rows


def _converted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema` in its types."""
    columns: list[pa.ChunkedArray[Any]] = []
    for field in schema:
        column = table.column(field.name)
        if is_json_text(field):
            column = column_to_json_text(column)
        elif column.type != field.type:
            column = column.cast(field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)


@contextmanager
def open_parquet(
    url: str, version: str = "", client: storage.Client = storage.DEFAULT_CLIENT
) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file by its footer; `version` as in `storage.open_object`.

    Raises:
        DatasetError: the file is missing, not readable, or damaged. Damage may show only while rows
            are read within the block.
    """
    with client.open_object(url, version=version) as opened:
        try:
            yield pq.ParquetFile(
                cast(Any, opened), buffer_size=COLUMN_BUFFER_BYTES, pre_buffer=False
            )
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk or the network failed, not the file: storage explains it
            reason = " ".join(str(error).split())  # Arrow's may have several lines
            raise DatasetError(
                f"{redact_credentials(url)} is not a readable Parquet file: {reason}; write it "
                "again or leave it out"
            ) from error


def parquet_schema(url: str, client: storage.Client = storage.DEFAULT_CLIENT) -> pa.Schema:
    """Returns the columns of a Parquet file from its footer.

    Raises:
        DatasetError: as `open_parquet`.
    """
    with open_parquet(url, client=client) as file:
        return file.schema_arrow.remove_metadata()


def _column_types(url: str) -> dict[str, pa.DataType]:
    """Returns the columns of a file."""
    types: dict[str, pa.DataType] = {}
    for field in parquet_schema(url):
        if field.name in types:
            raise DatasetError(
                f"{url} has more than one column '{field.name}'; rename or drop one of them"
            )
        types[field.name] = field.type
    return types


def _check_same_names(first: KeysView[str], names: KeysView[str], first_url: str, url: str) -> None:
    for missing, file_url, other_url in (
        (first - names, url, first_url),
        (names - first, first_url, url),
    ):
        for name in sorted(missing):
            raise DatasetError(
                f"column '{name}' of {file_url} is missing, but {other_url} has it; all files of "
                "an input need the same columns"
            )


PARQUET = Parquet()
