"""Checks that Arrow types can be written to Parquet, read back, merged and written again.

Which types Parquet and Arrow's kernels support differs between versions of Arrow. Each type is
therefore tried on small tables, before a run starts, instead of being looked up in a list.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from pipeline.output.conversion import convert_column
from pipeline.output.example_rows import example_table
from pipeline.output.round_trip import TYPE_ERRORS, stored_schema


def storable_types(data_types: Iterable[pa.DataType]) -> dict[pa.DataType, pa.DataType | None]:
    """Returns for each type the one in which a column is written.

    It is the type itself; or the type that Parquet returns in its place, such as the values of a
    dictionary of integers; or the same type in the layouts that all kernels support, such as
    `string` for `string_view`. None: Parquet cannot hold the values.
    """
    distinct = list(dict.fromkeys(data_types))
    if _stored_as(distinct) == distinct:  # the usual case, tried at once: 10 ms instead of 10 each
        return dict(zip(distinct, distinct, strict=True))
    return {data_type: _storable_type(data_type) for data_type in distinct}


def _storable_type(data_type: pa.DataType) -> pa.DataType | None:
    for candidate in (data_type, common_layout(data_type)):
        stored = _stored_as([candidate])
        if stored == [candidate] and can_cast(data_type, candidate):
            return candidate
        if stored is not None and _stored_as(stored) == stored and can_cast(data_type, stored[0]):
            return stored[0]
    return None


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether Arrow converts columns of one type to the other."""
    try:
        for rows in (0, 2):
            table = example_table(pa.schema([pa.field("x", source)]), rows)
            convert_column(table["x"], target)
    except TYPE_ERRORS:
        return False
    return True


def common_layout(data_type: pa.DataType) -> pa.DataType:
    """Returns the type with views, run-ends and inner dictionaries replaced by plain values.

    Items and fields of the result may be null.
    """
    plain: pa.DataType = _common_layout(data_type)
    return plain


def _common_layout(data_type: Any) -> Any:
    if types.is_string_view(data_type):
        return pa.string()
    if types.is_binary_view(data_type):
        return pa.binary()
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return _common_layout(data_type.value_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return _common_layout(data_type.storage_type)

    if types.is_map(data_type):
        key_type = _common_layout(data_type.key_type)
        return pa.map_(key_type, _common_layout(data_type.item_type))
    if types.is_struct(data_type):
        return pa.struct([pa.field(field.name, _common_layout(field.type)) for field in data_type])
    if types.is_fixed_size_list(data_type):
        return pa.list_(_common_layout(data_type.value_type), data_type.list_size)
    if types.is_list(data_type) or types.is_list_view(data_type):
        return pa.list_(_common_layout(data_type.value_type))
    if types.is_large_list(data_type) or types.is_large_list_view(data_type):
        return pa.large_list(_common_layout(data_type.value_type))
    return data_type


def _stored_as(data_types: Sequence[pa.DataType]) -> list[pa.DataType] | None:
    """Returns the types of columns that were written and read back; None if one cannot be.

    The columns are tried within a struct, too, as the synthesis of data sets writes them.
    """
    fields = [pa.field(str(index), data_type) for index, data_type in enumerate(data_types)]
    nested = pa.field("row", pa.struct(fields))
    try:
        stored: Any = stored_schema(pa.schema([*fields, nested]))
    except TYPE_ERRORS:
        return None

    columns = list(stored)[:-1]
    if stored.field("row").type != pa.struct(columns):
        return None
    return [column.type for column in columns]
