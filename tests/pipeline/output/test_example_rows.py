"""example_rows.py: every type has a null and a value, at any depth."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.output.example_rows import example_table

TYPES: dict[str, Any] = {
    "boolean": pa.bool_(),
    "integer": pa.uint8(),
    "number": pa.float16(),
    "decimal": pa.decimal128(5, 2),
    "date": pa.date32(),
    "time": pa.timestamp("us", "UTC"),
    "duration": pa.duration("ms"),
    "string": pa.string(),
    "view": pa.string_view(),
    "fixed": pa.binary(3),
    "list": pa.list_(pa.int64()),
    "large_list": pa.large_list(pa.list_(pa.string())),
    "fixed_list": pa.list_(pa.int32(), 2),
    "struct": pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
    "map": pa.map_(pa.string(), pa.int64()),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
    "uuid": pa.uuid(),
    "struct_of_uuid": pa.struct([("id", pa.uuid())]),
}


@pytest.mark.parametrize("name", TYPES)
def test_column_has_a_null_and_a_value(name: str) -> None:
    schema = pa.schema([pa.field(name, TYPES[name])])
    table = example_table(schema, 2)
    table.validate(full=True)
    assert table.schema == schema
    null, value = table[name].to_pylist()
    assert null is None
    assert value is not None


def test_value_has_values_in_its_fields_and_items() -> None:
    schema = pa.schema([("nested", TYPES["struct"]), ("pairs", TYPES["map"])])
    _, row = example_table(schema, 2).to_pylist()
    assert row["nested"]["a"] == 1
    assert [len(row["nested"]["b"]), len(row["pairs"])] == [1, 1]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_table_has_the_requested_rows(rows: int) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.decimal128(3, 1)), ("c", pa.null())])
    table = example_table(schema, rows)
    expected = [
        {"a": None, "b": None, "c": None},
        {"a": 1, "b": Decimal("0.0"), "c": None},
    ]
    assert table.to_pylist() == expected[:rows]


def test_type_without_values_is_an_error() -> None:
    union = pa.dense_union([pa.field("a", pa.int64()), pa.field("b", pa.string())])
    with pytest.raises(TypeError, match="no example of dense_union"):
        example_table(pa.schema([("either", union)]), 2)
