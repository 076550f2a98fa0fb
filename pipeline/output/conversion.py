"""Columns in other types of the same values."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def convert_column(
    column: "pa.ChunkedArray[Any]", data_type: pa.DataType
) -> "pa.ChunkedArray[Any]":
    """Returns a column in another type that holds its values.

    Arrow's kernels convert most types. Columns of the others are converted value by value, such as
    run-ends within lists, and fixed-size lists within structs, of which the result is not valid.

    Raises:
        ArrowException, ValueError, TypeError: the values do not fit the type.
    """
    if column.type == data_type:
        return column
    if pa.types.is_run_end_encoded(column.type):
        chunks = list(map(pc.run_end_decode, column.chunks))  # type: ignore[attr-defined]
        decoded = pa.chunked_array(chunks, column.type.value_type)
        return convert_column(decoded, data_type)
    try:
        converted: Any = column.cast(data_type)
        converted.validate()
    except (pa.ArrowInvalid, pa.ArrowIndexError, pa.ArrowNotImplementedError) as error:
        if isinstance(error, pa.ArrowInvalid) and not pa.types.is_nested(column.type):
            raise  # a value does not fit
        target: Any = data_type
        chunks = [pa.array(chunk.to_pylist(), target) for chunk in column.chunks]
        converted = pa.chunked_array(chunks, target)
    return converted  # type: ignore[no-any-return]


def convert_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the columns of `schema`, in its types and with its metadata."""
    columns = [convert_column(table.column(field.name), field.type) for field in schema]
    return pa.table(columns, schema=schema)
