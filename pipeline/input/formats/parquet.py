"""Parquet: the footer has the schema and the number of rows; only needed row groups are read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.input.formats.arrow_columns import (
    column_types,
    damage_explained,
    united_columns,
)
from pipeline.input.formats.batches import Batch, BatchCursor, UnreadableBatch
from pipeline.input.formats.format import (
    BATCH_ROWS,
    FileSummary,
    Rows,
    SourceFile,
    open_source,
)
from pipeline.input.formats.row_groups import OpenFile, plan_row_group, read_batches
from pipeline.records import InputFile

# Read per column at once, by one range request; bounds memory for huge row groups.
COLUMN_BUFFER_BYTES = 4 * 2**20


class Parquet:
    """The format of .parquet files, and of files without a known suffix."""

    name = "Parquet"
    suffixes = (".parquet", ".pq", ".parq")
    is_compressible = False

    def inspect(self, source: SourceFile, limit: int | None, client: storage.Client) -> FileSummary:
        """Reads the footer, which has the number of all rows: `limit` saves nothing."""
        with _opened(source, client) as file:
            columns = column_types(file.schema_arrow, source.url)
            return FileSummary(int(file.metadata.num_rows), columns)

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns in the order of the first file; the order of others may differ."""
        return united_columns(files)

    @contextmanager
    def open_cursor(
        self,
        source: SourceFile,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        client: storage.Client,
    ) -> "Iterator[ParquetCursor]":
        """Opens the file by its footer."""
        with (
            open_source(source, client) as opened,
            damage_explained(source.url, Parquet.name),
        ):
            file = _parquet_file(opened)
            open_again = partial(_parquet_file, opened, metadata=file.metadata)
            yield ParquetCursor(source.url, file, open_again, inputs, passthrough)


class ParquetCursor(BatchCursor):
    """Reads row ranges of an open Parquet file; row groups between ranges are not decoded."""

    def __init__(
        self,
        url: str,
        file: pq.ParquetFile,
        open_again: OpenFile,
        inputs: Sequence[str],
        passthrough: pa.Schema,
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`.

        `open_again` opens the file once more, with columns that are read as dictionaries.
        """
        super().__init__(url, iter(()), inputs, passthrough)
        self._file = file
        self._open_again = open_again
        self._columns = list(dict.fromkeys([*inputs, *passthrough.names]))

        groups = range(file.metadata.num_row_groups)
        group_rows = [file.metadata.row_group(group).num_rows for group in groups]
        # The first row of each group, and the number of all rows at the end.
        self._group_starts = np.concatenate([[0], np.cumsum(group_rows, dtype=np.int64)])
        self._is_open = False  # whether a row group is being read

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on."""
        file_rows = int(self._group_starts[-1])
        end = first_row + rows
        if end > file_rows:
            raise DatasetError(
                f"{self._url} has {file_rows} rows, and had {end} or more when it was listed; it "
                "changed"
            )
        return super().take(first_row, rows)

    def _skip_to(self, row: int) -> None:
        """Moves to `row`; row groups before its own are not read.

        This is what makes a resumed run or a partition cheap.
        """
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        group_start = int(self._group_starts[group])
        if not self._is_open or group_start > self._position:
            self._batches = self._group_batches(group)
            self._is_open = True
            self._position = group_start
            self._remainder = None
        super()._skip_to(row)

    def _group_batches(self, first_group: int) -> Iterator[Batch]:
        """Yields the rows of all row groups from one on."""
        for number in range(first_group, self._file.metadata.num_row_groups):
            group = plan_row_group(self._file, number, self._columns, self._open_again)
            if group.fault is None:
                yield from read_batches(group, self._columns, self._open_again)
            else:
                yield from self._null_batches(number, group.fault)

    def _null_batches(self, group: int, fault: str) -> Iterator[Batch]:
        """Yields nulls in place of the rows of a row group that cannot be read."""
        schema = self._file.schema_arrow
        total = self._file.metadata.row_group(group).num_rows
        for start in range(0, total, BATCH_ROWS):
            count = min(BATCH_ROWS, total - start)
            columns: list[Any] = []
            for name in self._columns:
                data_type: Any = schema.field(name).type
                columns.append(pa.nulls(count, data_type))
            rows = pa.RecordBatch.from_arrays(columns, names=self._columns)
            yield UnreadableBatch(rows, fault)


@contextmanager
def open_parquet(
    url: str, version: str = "", client: storage.Client = storage.DEFAULT_CLIENT
) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file by its footer; `version` as in `storage.open_object`.

    Raises:
        DatasetError: the file is missing, not readable, or damaged. Damage may show only while rows
            are read within the block.
    """
    with (
        client.open_object(url, version=version) as opened,
        damage_explained(url, Parquet.name),
    ):
        yield _parquet_file(opened)


@contextmanager
def _opened(source: SourceFile, client: storage.Client) -> Iterator[pq.ParquetFile]:
    with open_source(source, client) as opened, damage_explained(source.url, Parquet.name):
        yield _parquet_file(opened)


def _parquet_file(
    opened: BinaryIO, dictionaries: Sequence[str] = (), metadata: Any = None
) -> pq.ParquetFile:
    return pq.ParquetFile(
        cast(Any, opened),
        metadata=metadata,
        read_dictionary=list(dictionaries),
        buffer_size=COLUMN_BUFFER_BYTES,
        pre_buffer=False,
    )


def parquet_schema(url: str, client: storage.Client = storage.DEFAULT_CLIENT) -> pa.Schema:
    """Returns the columns of a Parquet file from its footer.

    Raises:
        DatasetError: as `open_parquet`.
    """
    with open_parquet(url, client=client) as file:
        return file.schema_arrow.remove_metadata()


PARQUET = Parquet()
