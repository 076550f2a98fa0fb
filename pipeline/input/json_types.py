"""Values of JSON lines -> Arrow types and arrays. It knows no files.

One type per column is decided over all rows before anything starts, so that every part of a run has
the same schema. Integers and reals together are float64; absent and null are the same. A column
whose values have no common type (1 and "one"), or one that Parquet cannot hold (an empty object),
is kept as JSON text: nothing is lost, nothing is guessed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

JSON_TEXT = {b"json_text": b"values of several types, written as JSON"}


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Columns in the order of first appearance.

    The type is None where the values have no common one.
    """

    types: dict[str, pa.DataType | None] = field(default_factory=dict)

    def merged(self, records: list[dict[str, Any]]) -> "JsonColumns":
        """Returns the columns with those of further `records`."""
        types = dict(self.types)
        for name in dict.fromkeys(name for record in records for name in record):
            found = _common_type(record.get(name) for record in records)
            types[name] = _united(types[name], found) if name in types else found
        return JsonColumns(types)

    def united(self, other: "JsonColumns") -> "JsonColumns":
        """Returns the columns of both."""
        types = dict(self.types)
        for name, kind in other.types.items():
            types[name] = _united(types[name], kind) if name in types else kind
        return JsonColumns(types)

    def field(self, name: str) -> "pa.Field[Any]":
        """Returns the Arrow field in which the column is passed through."""
        kind = self.types[name]
        if kind is None or _has_empty_struct(kind):
            return pa.field(name, pa.string(), metadata=JSON_TEXT)
        return pa.field(name, kind)


def fitted(values: list[Any], column: Any) -> tuple["pa.Array[Any]", list[int]]:
    """Returns `values` in the type of `column`, and the positions of those that do not fit (they become null)."""
    if column.metadata and b"json_text" in column.metadata:
        return pa.array(
            [None if value is None else json.dumps(value) for value in values], pa.string()
        ), []
    try:
        return pa.array(values, column.type), []
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        misfits = [row for row, value in enumerate(values) if not _fits(value, column.type)]
        kept = [None if row in set(misfits) else value for row, value in enumerate(values)]
        return pa.array(kept, column.type), misfits


def _fits(value: Any, kind: Any) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    return True


def _common_type(values: Iterable[Any]) -> pa.DataType | None:
    try:
        kind: pa.DataType = pa.array(list(values)).type
        return kind
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return None


def _united(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    if one is None or other is None or one == other:
        return one if one == other else None
    try:
        schemas = [pa.schema([("column", one)]), pa.schema([("column", other)])]
        united: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        return united
    except pa.ArrowException:
        return None


def _has_empty_struct(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(
            _has_empty_struct(kind.field(index).type) for index in range(kind.num_fields)
        )
    return pa.types.is_list(kind) and _has_empty_struct(kind.value_type)
