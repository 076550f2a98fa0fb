"""Row ranges of a sequence of Arrow record batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import DatasetError
from pipeline.input.formats.format import Rows
from pipeline.input.formats.python_values import python_values
from pipeline.input.json_text import column_to_json_text, is_json_text
from pipeline.storage.redaction import redact_credentials


class BatchCursor:
    """Reads row ranges of batches, in ascending order."""

    def __init__(
        self,
        url: str,
        batches: Iterator[pa.RecordBatch],
        inputs: Sequence[str],
        passthrough: pa.Schema,
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        self._url = url
        self._batches = batches
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._position = 0  # of the next row
        self._remainder: pa.RecordBatch | None = None  # of the last batch, not returned yet

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on."""
        end = first_row + rows
        self._skip_to(first_row)
        batches: list[pa.RecordBatch] = []
        while self._position < end:
            batches.append(self._next_rows(end))
        table = pa.Table.from_batches(batches)

        values: dict[str, list[object]] = {}
        faults: dict[int, str] = {}
        for name in self._inputs:
            values[name], unreadable = python_values(table.column(name))
            for row in unreadable:
                faults[row] = f"column '{name}' is not valid UTF-8"
        passthrough = _converted(table, self._passthrough)
        return Rows(values, passthrough, faults)

    def _skip_to(self, row: int) -> None:
        """Moves to `row`."""
        while self._position < row:
            self._next_rows(row)

    def _next_rows(self, end: int) -> pa.RecordBatch:
        """Returns rows from the position on, of one batch and before row `end`."""
        batch = self._remainder
        if batch is None:
            batch = next(self._batches, None)
        if batch is None:
            raise DatasetError(
                f"{redact_credentials(self._url)} has {self._position} rows, and had {end} or more "
                "when it was listed; it changed"
            )
        at_most = end - self._position
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
