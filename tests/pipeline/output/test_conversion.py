"""Columns in other types of the same values."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.output.conversion import convert_column, convert_table

PAIRS = pa.struct([("a", pa.list_(pa.int8(), 2))])
WIDER_PAIRS = pa.struct([("a", pa.list_(pa.int16(), 2))])


@pytest.mark.parametrize("first", [0, 1])
def test_convert_column_keeps_values_of_fixed_size_lists(first: int) -> None:
    values: list[Any] = [{"a": [1, 2]}, None, {"a": None}, {"a": [3, None]}]
    column = pa.chunked_array([pa.array(values, PAIRS).slice(first)])
    assert convert_column(column, WIDER_PAIRS).to_pylist() == values[first:]


def test_convert_column_decodes_runs() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3]), pa.array(["a", None]))
    column = pa.chunked_array([runs.slice(1)])
    assert convert_column(column, pa.large_string()).to_pylist() == ["a", None]


def test_convert_column_rejects_values_that_do_not_fit() -> None:
    with pytest.raises(pa.ArrowInvalid):
        convert_column(pa.chunked_array([pa.array([1.5])]), pa.int64())


def test_convert_column_returns_equal_types_unchanged() -> None:
    column = pa.chunked_array([pa.array([[1]], pa.list_(pa.field("element", pa.int8())))])
    assert convert_column(column, pa.list_(pa.int8())) is column


def test_convert_table_has_the_columns_of_the_schema() -> None:
    schema: Any = pa.schema([("b", pa.int64()), ("a", pa.string())], metadata={"key": "value"})
    table = convert_table(pa.table({"a": ["x"], "b": pa.array([1], pa.int8()), "c": [0]}), schema)
    assert table.schema.equals(schema, check_metadata=True)
    assert table.to_pydict() == {"b": [1], "a": ["x"]}
