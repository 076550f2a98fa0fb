"""Adds the columns that the folders of a file give to the rows of the file."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.input.formats.format import Cursor, Rows


class FolderColumnsCursor:
    """Reads row ranges of a file, with values that are the same for all of its rows."""

    def __init__(
        self,
        cursor: Cursor,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        values: Mapping[str, Any],
    ) -> None:
        """Takes an open file.

        Args:
            cursor: reads the other columns.
            inputs: as in `pipeline.input.formats.open_cursor`.
            passthrough: as in `pipeline.input.formats.open_cursor`.
            values: of the columns of the folders, by name.
        """
        self._cursor = cursor
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._values = values

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on."""
        read = self._cursor.take(first_row, rows)
        inputs: dict[str, list[Any]] = {}
        for name in self._inputs:
            if name in self._values:
                inputs[name] = [self._values[name]] * rows
            else:
                inputs[name] = read.values[name]

        arrays: list[Any] = []
        for field in self._passthrough:
            if field.name in self._values:
                scalar = pa.scalar(self._values[field.name], field.type)
                arrays.append(pa.repeat(scalar, rows))
            else:
                arrays.append(read.passthrough.column(field.name))
        table = pa.Table.from_arrays(arrays, schema=self._passthrough)
        return Rows(inputs, table, read.faults)
