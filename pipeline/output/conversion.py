"""Columns in other types of the same values."""

from typing import Any

import pyarrow as pa


def convert_column(
    column: "pa.ChunkedArray[Any]", data_type: pa.DataType
) -> "pa.ChunkedArray[Any]":
    """Returns a column in another type that holds its values.

    Arrow's kernels convert most types. Of fixed-size lists within structs, some versions return
    arrays that are not valid: such columns are converted value by value.
    """
    if column.type == data_type:
        return column
    try:
        converted: Any = column.cast(data_type)
        converted.validate()
    except pa.ArrowInvalid:
        target: Any = data_type
        chunks = [pa.array(chunk.to_pylist(), target) for chunk in column.chunks]
        converted = pa.chunked_array(chunks, target)
    return converted  # type: ignore[no-any-return]


def convert_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema`, in its types and with its metadata."""
    columns = [convert_column(table.column(field.name), field.type) for field in schema]
    return pa.table(columns, schema=schema)
