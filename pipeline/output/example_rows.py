"""Tables with a null and a value in each column, to try what Arrow and Parquet support.

Some kernels fail only where there is a value, at any depth.
"""

from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types


def example_table(schema: pa.Schema, rows: int) -> pa.Table:
    """Returns a table of `rows` rows, at most two: a row of nulls, then a row of values.

    Raises:
        ArrowException, ValueError, TypeError: a type has no values.
    """
    columns = [_example_column(field.type).slice(0, rows) for field in schema]
    return pa.table(columns, schema=schema)


def _example_column(data_type: Any) -> Any:
    """Returns a null and a value; `pa.array` does not take fields of extension types."""
    if isinstance(data_type, pa.BaseExtensionType):
        storage = _example_column(data_type.storage_type)
        return pa.ExtensionArray.from_storage(data_type, storage)
    if types.is_struct(data_type) and data_type.num_fields:
        children = [_example_column(field.type) for field in data_type]
        is_null = pa.array([True, False])
        return pa.StructArray.from_arrays(children, fields=list(data_type), mask=is_null)
    return pa.array([None, _example(data_type)], data_type)


def _example(data_type: Any) -> Any:
    """Returns a value of a type, with a value in each of its fields and items."""
    if isinstance(data_type, pa.BaseExtensionType):
        return _example(data_type.storage_type)
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return _example(data_type.value_type)
    if types.is_struct(data_type):
        return {field.name: _example(field.type) for field in data_type}
    if types.is_map(data_type):
        return [(_example(data_type.key_type), _example(data_type.item_type))]
    if types.is_fixed_size_list(data_type):
        return [_example(data_type.value_type)] * data_type.list_size
    if types.is_union(data_type):
        raise TypeError(f"no example of {data_type}")
    if not types.is_nested(data_type):
        return _scalar_example(data_type)
    items: Any = data_type
    return [_example(items.value_type)]


def _scalar_example(data_type: Any) -> Any:
    if types.is_null(data_type):
        return None
    if types.is_boolean(data_type):
        return True
    if types.is_decimal(data_type):
        return Decimal(0)
    if types.is_fixed_size_binary(data_type):
        return bytes(data_type.byte_width)
    if types.is_integer(data_type) or types.is_floating(data_type) or types.is_temporal(data_type):
        return 1
    return "long enough for a view to have a buffer"
