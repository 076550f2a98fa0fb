"""Types of JSON values: one per column over all records, and values that do not fit it."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.json_text import json_text_field
from pipeline.input.json_types import JsonColumns, to_arrow

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


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (2**53 + 1, 1.5),
        ([2**53 + 1], [1.5]),
        ({"a": [2**53 + 1]}, {"a": [1.5]}),
    ],
)
def test_integers_that_float64_does_not_hold_have_no_type_with_reals(
    first: Any, second: Any, order: int
) -> None:
    batches = [[{"x": first}], [{"x": second}]][::order]
    columns = JsonColumns()
    for batch in batches:
        columns = columns.with_records(batch)
    assert columns.types == {"x": None}
    assert JsonColumns().with_records([*batches[0], *batches[1]]).types == {"x": None}


def test_long_integers_beside_reals_keep_their_type() -> None:
    columns = JsonColumns()
    for _ in range(2):
        columns = columns.with_records([{"x": {"id": 2**60, "share": 0.5}}])
    assert columns.types == {"x": pa.struct([("id", pa.int64()), ("share", pa.float64())])}


def test_to_arrow_names_values_that_do_not_fit() -> None:
    array, misfits = to_arrow([1, "two", None, 2**70, 5], pa.field("x", pa.int64()))
    assert array.to_pylist() == [1, None, None, None, 5]
    assert misfits == [1, 3]


def test_to_arrow_writes_mixed_values_as_json() -> None:
    values = [1, "one", None, {"a": []}, 2**70, False]
    array, misfits = to_arrow(values, json_text_field("x"))
    texts: list[Any] = array.to_pylist()
    assert misfits == []
    assert texts[2] is None
    assert [json.loads(text) for text in texts if text is not None] == [
        value for value in values if value is not None
    ]


@given(st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans()))
def test_to_arrow_loses_no_value_of_a_column(values: list[Any]) -> None:
    values = [value for value in values if not isinstance(value, str) or value.isprintable()]
    columns = JsonColumns()
    for value in values:
        columns = columns.with_records([{"x": value}])
    if not columns.types:
        return
    data_type = columns.types["x"]
    field: Any = json_text_field("x") if data_type is None else pa.field("x", data_type)
    array, misfits = to_arrow(values, field)
    assert misfits == []
    for value, converted in zip(values, array.to_pylist(), strict=True):
        if data_type is None and value is not None:
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
