"""Values of JSON lines → Arrow types and arrays.

The type of a column is decided over all rows before anything starts, so that every part of a run
has the same schema. Integers and reals together are float64; absent and null are the same. A column
whose values have no common type (1 and "one"), or whose type Parquet cannot hold (an empty object),
is kept as JSON text: no value is lost or converted by a guess.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

JSON_TEXT = {b"json_text": b"values of several types, written as JSON"}
# What pyarrow raises for values that have no common type, or do not fit the type.
CONVERSION_ERRORS = (pa.ArrowException, OverflowError, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Columns in the order of first appearance.

    The type is None where the values have no common one.
    """

    types: dict[str, pa.DataType | None] = field(default_factory=dict)

    def with_records(self, records: Sequence[dict[str, Any]]) -> "JsonColumns":
        """Returns the columns with those of further `records`."""
        # Only the keys that a record has: looking up each key in each record is quadratic.
        values: dict[str, list[Any]] = {}
        for record in records:
            for name, value in record.items():
                values.setdefault(name, []).append(value)

        types = {name: _type_of(column) for name, column in values.items()}
        return self.union(JsonColumns(types))

    def union(self, columns: "JsonColumns") -> "JsonColumns":
        """Returns these columns and `columns`, each with the type that both have in common."""
        types = dict(self.types)
        for name, data_type in columns.types.items():
            if name in types:
                types[name] = _common_type(types[name], data_type)
            else:
                types[name] = data_type
        return JsonColumns(types)

    def field(self, name: str) -> "pa.Field[Any]":
        """Returns the Arrow field in which the column passes through."""
        data_type = self.types[name]
        if data_type is None or _has_empty_struct(data_type):
            return pa.field(name, pa.string(), metadata=JSON_TEXT)
        return pa.field(name, data_type)


def to_arrow(values: Sequence[Any], column: Any) -> tuple["pa.Array[Any]", list[int]]:
    """Converts values to the type of a column.

    Args:
        values: as parsed from JSON.
        column: an Arrow field, as from `JsonColumns.field`.

    Returns:
        The array, and the positions of values that do not fit the type; they are null.
    """
    if column.metadata is not None and JSON_TEXT.items() <= column.metadata.items():
        return pa.array(map(_json_text, values), pa.string()), []
    try:
        return pa.array(values, column.type), []
    except CONVERSION_ERRORS:
        return _convert_each(values, column.type)


def _json_text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value)


def _convert_each(
    values: Sequence[Any], data_type: pa.DataType
) -> tuple["pa.Array[Any]", list[int]]:
    fitting: list[Any] = []
    misfits: list[int] = []
    for position, value in enumerate(values):
        try:
            pa.array([value], data_type)
            fitting.append(value)
        except CONVERSION_ERRORS:
            fitting.append(None)
            misfits.append(position)
    return pa.array(fitting, data_type), misfits


def _type_of(values: list[Any]) -> pa.DataType | None:
    try:
        data_type: pa.DataType = pa.array(values).type
    except CONVERSION_ERRORS:
        return None
    return data_type


def _common_type(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    if first is None or second is None:
        return None
    if first == second:
        return first
    schemas = [pa.schema([("column", first)]), pa.schema([("column", second)])]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException:
        return None
    data_type: pa.DataType = schema.field("column").type
    return data_type


def _has_empty_struct(data_type: Any) -> bool:
    """Whether a struct without fields is part of the type: Parquet cannot hold it."""
    if pa.types.is_struct(data_type):
        fields = list(data_type)
        return not fields or any(_has_empty_struct(field.type) for field in fields)
    return pa.types.is_list(data_type) and _has_empty_struct(data_type.value_type)
