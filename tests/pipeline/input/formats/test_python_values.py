"""Arrow columns as Python values: the same as Arrow's own conversion, ids as compact arrays."""

from array import array
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.formats.python_values import python_values

INT32 = st.integers(-(2**31), 2**31 - 1)


def as_lists(values: list[Any]) -> list[Any]:
    return [list(value) if isinstance(value, array) else value for value in values]


@given(
    st.lists(st.none() | st.lists(INT32, max_size=4), max_size=9),
    st.integers(0, 4),
    st.sampled_from([pa.list_(pa.int64()), pa.large_list(pa.int32())]),
)
def test_integer_lists_equal_the_conversion_of_arrow(
    ids: list[Any], offset: int, data_type: Any
) -> None:
    chunk = pa.array(ids, data_type)
    column = pa.chunked_array([chunk.slice(offset), chunk], data_type)
    values, unreadable = python_values(column)
    assert as_lists(values) == column.to_pylist()
    assert all(value is None or isinstance(value, array) for value in values)
    assert unreadable == []


@pytest.mark.parametrize("item", [None, 2**31, -(2**31) - 1])
def test_integer_lists_keep_items_that_are_not_int32(item: Any) -> None:
    rows = [[1, 2], [3, item], None]
    values, _ = python_values(pa.chunked_array([pa.array(rows, pa.list_(pa.int64()))]))
    assert as_lists(values) == rows


@pytest.mark.parametrize("bound", [2**31 - 1, -(2**31)])
def test_integer_lists_at_the_bounds_of_int32_are_compact(bound: int) -> None:
    values, _ = python_values(pa.chunked_array([pa.array([[bound]], pa.list_(pa.int64()))]))
    assert values == [array("i", [bound])]


@pytest.mark.parametrize("data_type", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_become_text(data_type: Any) -> None:
    column = pa.chunked_array([pa.array([b"a", None, "é".encode()], data_type)])
    assert python_values(column) == (["a", None, "é"], [])


def test_bytes_and_decimals_become_plain_at_any_depth() -> None:
    data_type = pa.list_(pa.struct([("a", pa.binary()), ("b", pa.decimal128(5, 2))]))
    values = [[{"a": b"x", "b": Decimal("7.00")}], None, [{"a": None, "b": Decimal("0.25")}]]
    column = pa.chunked_array([pa.array(values, data_type)])
    assert python_values(column) == (
        [[{"a": "x", "b": 7}], None, [{"a": None, "b": 0.25}]],
        [],
    )


def test_dictionaries_become_their_values() -> None:
    column = pa.chunked_array([pa.array(["x", None, "y", "x"]).dictionary_encode()])
    assert python_values(column) == (["x", None, "y", "x"], [])


@pytest.mark.parametrize("data_type", [pa.string(), pa.binary()])
def test_bytes_that_are_not_utf8_are_named_by_position(data_type: Any) -> None:
    raw = pa.array([b"a", b"\xff", None, b"d", b"\xfe"], pa.binary())
    column: Any = pa.Array.from_buffers(data_type, 5, raw.buffers())
    assert python_values(pa.chunked_array([column])) == (["a", None, None, "d", None], [1, 4])
