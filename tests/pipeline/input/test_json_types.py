"""Types of JSON values: one per column over all records, and values that do not fit it."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.json_types import JSON_TEXT, JsonColumns, to_arrow

STRUCT = pa.struct([("a", pa.int64()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("values", "data_type"),
    [
        ([1, 2], pa.int64()),
        ([1, 0.5], pa.float64()),
        ([None, "x"], pa.string()),
        ([None, None], pa.null()),
        ([True, False], pa.bool_()),
        ([["x"], []], pa.list_(pa.string())),
        ([{"a": 1}, {"b": "x"}], STRUCT),
        ([1, "one"], None),
        ([True, 1], None),
        ([["x"], "x"], None),
        ([2**70], None),
    ],
)
def test_columns_have_the_common_type_of_their_values(values: list[Any], data_type: Any) -> None:
    records = [{"x": value} for value in values]
    at_once = JsonColumns().with_records(records)
    one_by_one = JsonColumns()
    for record in records:
        one_by_one = one_by_one.with_records([record])
    assert at_once.types == one_by_one.types == {"x": data_type}


def test_columns_keep_the_order_of_first_appearance() -> None:
    columns = JsonColumns().with_records([{"b": 1}, {"c": 1, "a": 1}])
    assert list(columns.with_records([{"d": 1, "b": 2}]).types) == ["b", "c", "a", "d"]


def test_union_of_files_has_the_columns_of_both() -> None:
    first = JsonColumns({"x": pa.int64(), "y": pa.string(), "z": None})
    second = JsonColumns({"y": pa.int64(), "x": pa.float64(), "w": pa.bool_(), "z": pa.int64()})
    assert first.union(second).types == {
        "x": pa.float64(),
        "y": None,
        "z": None,
        "w": pa.bool_(),
    }


@pytest.mark.parametrize(
    "data_type",
    [None, pa.struct([]), pa.list_(pa.struct([])), pa.struct([("a", pa.struct([]))])],
)
def test_field_is_text_where_parquet_has_no_type(data_type: Any) -> None:
    field = JsonColumns({"x": data_type}).field("x")
    assert (field.type, field.metadata) == (pa.string(), JSON_TEXT)


@pytest.mark.parametrize("data_type", [pa.int64(), STRUCT, pa.list_(STRUCT)])
def test_field_has_the_type_of_the_column(data_type: Any) -> None:
    field = JsonColumns({"x": data_type}).field("x")
    assert (field.type, field.metadata) == (data_type, None)


def test_to_arrow_names_values_that_do_not_fit() -> None:
    array, misfits = to_arrow([1, "two", None, 2**70, 5], pa.field("x", pa.int64()))
    assert array.to_pylist() == [1, None, None, None, 5]
    assert misfits == [1, 3]


def test_to_arrow_writes_mixed_values_as_json() -> None:
    values = [1, "one", None, {"a": []}, 2**70, False]
    array, misfits = to_arrow(values, pa.field("x", pa.string(), metadata=JSON_TEXT))
    texts: list[Any] = array.to_pylist()
    assert misfits == []
    assert texts[2] is None
    assert [json.loads(text) for text in texts if text is not None] == [
        value for value in values if value is not None
    ]


@given(st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans()))
def test_to_arrow_loses_no_value_of_a_column(values: list[Any]) -> None:
    values = [value for value in values if not isinstance(value, str) or value.isprintable()]
    columns = JsonColumns().with_records([{"x": value} for value in values])
    if not columns.types:
        return
    field: Any = columns.field("x")
    array, misfits = to_arrow(values, field)
    assert misfits == []
    for value, converted in zip(values, array.to_pylist(), strict=True):
        if field.metadata == JSON_TEXT and value is not None:
            assert json.loads(converted) == value
        else:
            assert converted == value


def test_columns_visit_only_the_keys_of_each_record() -> None:
    class Record(dict[str, int]):
        visited = 0

        def items(self) -> Any:
            Record.visited += len(self)
            return super().items()

        def get(self, *_: Any) -> Any:
            raise AssertionError("looked up a key that other records have")

    records = [Record({f"key{number}": number}) for number in range(500)]
    columns = JsonColumns().with_records(records)
    assert Record.visited == 500
    assert list(columns.types) == [f"key{number}" for number in range(500)]
    assert set(columns.types.values()) == {pa.int64()}


def test_absent_and_null_values_do_not_change_the_type() -> None:
    records: list[dict[str, Any]] = [{"a": None}, {"a": 1, "b": None}, {"b": None}]
    types = {"a": pa.int64(), "b": pa.null()}
    assert JsonColumns().with_records(records).types == types
