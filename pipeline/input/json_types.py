"""Values of JSON lines → Arrow types and arrays.

The type of a column is decided over all rows before anything starts, so that every part of a run
has the same schema. Integers and reals together are float64, if that holds the integers exactly;
absent and null are the same. A column whose values have no common type (1 and "one"), or
very many keys, is kept as JSON text: no value is lost or converted by a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from pipeline.input.json_text import is_json_text, to_json_text

# What pyarrow raises for values that have no common type, or do not fit the type.
CONVERSION_ERRORS = (pa.ArrowException, OverflowError, ValueError, TypeError)
# Integers up to this one are float64 numbers.
EXACT_INTEGER = 2**53
# Objects whose keys are data, such as names of users, would become a Parquet column for each key.
MAX_KEYS = 1000


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Columns in the order of first appearance.

    The type is None where the values have no common one.
    """

    types: Mapping[str, pa.DataType | None] = field(default_factory=dict)
    # columns that have an integer which float64 does not hold, at any depth
    long_integers: frozenset[str] = frozenset()

    def with_records(self, records: Sequence[dict[str, Any]]) -> "JsonColumns":
        """Returns the columns with those of further `records`."""
        # Only the keys that a record has: looking up each key in each record is quadratic.
        columns: dict[str, list[Any]] = {}
        for record in records:
            for name, value in record.items():
                if value is None and name in columns:
                    continue
                columns.setdefault(name, []).append(value)
        return self.union(_typed(columns))

    def union(self, columns: "JsonColumns") -> "JsonColumns":
        """Returns these columns and `columns`, each with the type that both have in common."""
        long_integers = self.long_integers | columns.long_integers
        types = dict(self.types)
        for name, data_type in columns.types.items():
            if name in types:
                types[name] = _common_type(types[name], data_type, name in long_integers)
            else:
                types[name] = data_type
        return JsonColumns(types, long_integers)


def to_arrow(values: Sequence[Any], column: "pa.Field[Any]") -> "tuple[pa.Array[Any], list[int]]":
    """Converts values to the type of a column.

    Args:
        values: as parsed from JSON.
        column: an Arrow field, of the type that was decided over all rows.

    Returns:
        The array, and the positions of values that do not fit the type; they are null. There are
        none, unless the file has changed.
    """
    if is_json_text(column):
        return to_json_text(values), []
    try:
        return cast("pa.Array[Any]", pa.array(values, column.type)), []
    except CONVERSION_ERRORS:
        return _convert_each(values, column.type)


def _convert_each(
    values: Sequence[Any], data_type: pa.DataType
) -> "tuple[pa.Array[Any], list[int]]":
    fitting: list[Any] = []
    misfits: list[int] = []
    for position, value in enumerate(values):
        try:
            pa.array([value], data_type)
            fitting.append(value)
        except CONVERSION_ERRORS:
            fitting.append(None)
            misfits.append(position)
    return cast("pa.Array[Any]", pa.array(fitting, data_type)), misfits


def _typed(columns: Mapping[str, list[Any]]) -> JsonColumns:
    types: dict[str, pa.DataType | None] = {}
    long_integers: set[str] = set()
    for name, values in columns.items():
        try:
            array: Any = pa.array(values)
        except CONVERSION_ERRORS:
            types[name] = None
            continue
        types[name] = _bounded(array.type)
        if _has_long_integer(array):
            long_integers.add(name)
    return JsonColumns(types, frozenset(long_integers))


def _has_long_integer(values: Any) -> bool:
    """Whether an integer at any depth is beyond those that float64 holds."""
    if types.is_integer(values.type):
        bounds: Any = pc.min_max(values)
        lowest, highest = bounds["min"].as_py(), bounds["max"].as_py()
        return lowest is not None and not -EXACT_INTEGER <= lowest <= highest <= EXACT_INTEGER
    if types.is_struct(values.type):
        return any(map(_has_long_integer, values.flatten()))
    return types.is_list(values.type) and _has_long_integer(values.flatten())


def _common_type(
    first: pa.DataType | None, second: pa.DataType | None, has_long_integers: bool
) -> pa.DataType | None:
    if first is None or second is None:
        return None
    if first == second:
        return first
    schemas = [pa.schema([("column", first)]), pa.schema([("column", second)])]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException:
        return None

    common = _bounded(schema.field("column").type)
    if common is None:
        return None
    is_exact = _keeps_integers(first, common) and _keeps_integers(second, common)
    if has_long_integers and not is_exact:
        return None
    return common


def _bounded(data_type: pa.DataType) -> pa.DataType | None:
    """Returns the type; None if its objects have more than MAX_KEYS keys in all."""
    if _leaves(data_type) > MAX_KEYS:
        return None
    return data_type


def _leaves(data_type: Any) -> int:
    if types.is_struct(data_type):
        return sum(_leaves(field.type) for field in data_type)
    if types.is_list(data_type):
        return _leaves(data_type.value_type)
    return 1


def _keeps_integers(source: Any, target: Any) -> bool:
    """Whether integers of `source` are integers in `target`, at every depth."""
    if types.is_integer(source):
        return bool(types.is_integer(target))
    if types.is_list(source):
        return _keeps_integers(source.value_type, target.value_type)
    if types.is_struct(source):
        return all(_keeps_integers(item.type, target.field(item.name).type) for item in source)
    return True
