"""Parquet: the footer has the schema and the number of rows; only needed row groups are read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

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
from pipeline.input.formats.batches import BatchCursor
from pipeline.input.formats.format import (
    BATCH_ROWS,
    FileSummary,
    Rows,
    SourceFile,
    open_source,
)
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
        with _opened(source, client) as file:
            yield ParquetCursor(source.url, file, inputs, passthrough)


class ParquetCursor(BatchCursor):
    """Reads row ranges of an open Parquet file; row groups between ranges are not decoded."""

    def __init__(
        self, url: str, file: pq.ParquetFile, inputs: Sequence[str], passthrough: pa.Schema
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        super().__init__(url, iter(()), inputs, passthrough)
        self._file = file
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
            self._batches = self._file.iter_batches(
                batch_size=BATCH_ROWS,
                row_groups=list(range(group, self._file.metadata.num_row_groups)),
                columns=self._columns,
            )
            self._is_open = True
            self._position = group_start
            self._remainder = None
        super()._skip_to(row)


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
        yield pq.ParquetFile(cast(Any, opened), buffer_size=COLUMN_BUFFER_BYTES, pre_buffer=False)


@contextmanager
def _opened(source: SourceFile, client: storage.Client) -> Iterator[pq.ParquetFile]:
    with open_source(source, client) as opened, damage_explained(source.url, Parquet.name):
        yield pq.ParquetFile(cast(Any, opened), buffer_size=COLUMN_BUFFER_BYTES, pre_buffer=False)


def parquet_schema(url: str, client: storage.Client = storage.DEFAULT_CLIENT) -> pa.Schema:
    """Returns the columns of a Parquet file from its footer.

    Raises:
        DatasetError: as `open_parquet`.
    """
    with open_parquet(url, client=client) as file:
        return file.schema_arrow.remove_metadata()


PARQUET = Parquet()
