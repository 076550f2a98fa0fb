"""Row ranges of a sequence of Arrow record batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from actors.protocol.plain_text import bare
from pipeline.errors import DatasetError
from pipeline.input.formats.format import Rows
from pipeline.input.formats.python_values import python_values
from pipeline.input.json_text import column_to_json_text, is_json_text
from pipeline.input.limits import KEPT_VALUE_BYTES, RangeLimits
from pipeline.input.row_sizes import Sizes, value_bytes
from pipeline.output.conversion import convert_column
from pipeline.output.storable import common_layout


@dataclass(frozen=True, slots=True)
class UnreadableBatch:
    """Nulls in place of rows that cannot be used."""

    rows: pa.RecordBatch
    fault: str  # why they cannot

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.rows.num_rows

    def slice(self, start: int, length: int | None = None) -> "UnreadableBatch":
        """Returns some of the rows."""
        return UnreadableBatch(self.rows.slice(start, length), self.fault)


Batch = pa.RecordBatch | UnreadableBatch


class BatchCursor:
    """Reads row ranges of batches, in ascending order."""

    def __init__(
        self,
        url: str,
        batches: Iterator[Batch],
        inputs: Sequence[str],
        passthrough: pa.Schema,
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        self._url = url
        self._batches = batches
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._position = 0  # of the next row
        self._remainder: Batch | None = None  # of the last batch, not returned yet

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on."""
        end = first_row + rows
        self._skip_to(first_row)

        limits = RangeLimits()
        values: dict[str, list[Any]] = {name: [] for name in self._inputs}
        tables: list[pa.Table] = []
        faults: dict[int, str] = {}
        while self._position < end:
            start = self._position - first_row
            batch = self._next_rows(end)
            usable, batch_faults = _within_limits(batch, limits)

            table = pa.Table.from_batches([usable])
            for name in self._inputs:
                column_values, unreadable = python_values(table.column(name))
                values[name] += column_values
                for row in unreadable:
                    batch_faults.setdefault(row, f"column '{name}' is not valid UTF-8")
            tables.append(_converted(table, self._passthrough))
            for row, fault in batch_faults.items():
                faults[start + row] = fault
        return Rows(values, pa.concat_tables(tables), faults)

    def _skip_to(self, row: int) -> None:
        """Moves to `row`."""
        while self._position < row:
            self._next_rows(row)

    def _next_rows(self, end: int) -> Batch:
        """Returns rows from the position on, of one batch and before row `end`."""
        batch = self._remainder
        if batch is None:
            batch = next(self._batches, None)
        if batch is None:
            raise DatasetError(
                f"{bare(self._url)} has {self._position} rows, and had {end} or more "
                "when it was listed; it changed"
            )
        at_most = end - self._position
        rows = batch.slice(0, at_most)
        self._remainder = None
        if batch.num_rows > at_most:
            self._remainder = batch.slice(at_most)
        self._position += rows.num_rows
        return rows


def _within_limits(batch: Batch, limits: RangeLimits) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Returns the rows without values beyond the limits, and the faults by position."""
    if isinstance(batch, UnreadableBatch):
        return batch.rows, dict.fromkeys(range(batch.num_rows), batch.fault)

    sizes: dict[str, Sizes] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        sizes[name] = value_bytes(column)
    faults = limits.check(sizes, batch.num_rows)
    return _without_values(batch, sizes, faults), faults


def _without_values(
    rows: pa.RecordBatch, sizes: Mapping[str, Sizes], faults: Mapping[int, str]
) -> pa.RecordBatch:
    """Returns the rows; long values of those with a fault are null, short ones stay."""
    if not faults:
        return rows
    positions = np.arange(rows.num_rows)
    has_fault = np.isin(positions, list(faults))
    columns: list[Any] = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        is_dropped = has_fault & (sizes[name] > KEPT_VALUE_BYTES)
        if is_dropped.any():
            kept: Any = pa.array(positions, mask=is_dropped)
            columns.append(_takeable(column).take(kept))
        else:
            columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _takeable(column: Any) -> Any:
    """Returns the values in a layout from which rows can be taken: views have no kernel for it."""
    try:
        column.take(pa.array([], pa.int64()))
    except pa.ArrowNotImplementedError:
        return column.cast(common_layout(column.type))
    return column


def _converted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema` in its types."""
    columns: list[pa.ChunkedArray[Any]] = []
    for field in schema:
        column = table.column(field.name)
        if is_json_text(field):
            column = column_to_json_text(column)
        columns.append(convert_column(column, field.type))
    return pa.table(columns, schema=schema)
