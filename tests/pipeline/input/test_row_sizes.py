"""Bytes of the values of a column."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.input.row_sizes import value_bytes


@pytest.mark.parametrize(
    ("values", "data_type", "sizes"),
    [
        (["ab", None, "é"], pa.string(), [2, 0, 2]),
        (["ab", None, "é"], pa.large_string(), [2, 0, 2]),
        (["ab", None, "long enough to have a buffer"], pa.string_view(), [2, 0, 28]),
        ([b"ab", None], pa.binary(), [2, 0]),
        (["ab", None, "ab"], pa.dictionary(pa.int8(), pa.string()), [2, None, 2]),
        ([1, None], pa.int32(), [4, 4]),
        ([True], pa.bool_(), [1]),
        ([None, 1], pa.decimal128(5, 2), [16, 16]),
        ([1], pa.timestamp("ns"), [8]),
        ([None, None], pa.null(), [0, 0]),
        ([{"a": "abc", "b": 1}], pa.struct([("a", pa.string()), ("b", pa.int64())]), [11]),
        ([["a", "b" * 20], [], None], pa.list_(pa.string()), [28, 0, 0]),
        ([[1, 2], None], pa.list_(pa.int32(), 2), [16, 0]),
        ([["a" * 9], []], pa.large_list_view(pa.string()), [9, 0]),
        ([[("k", "v" * 9)], []], pa.map_(pa.string(), pa.string()), [18, 0]),
        ([[None] * 5], pa.list_(pa.null()), [40]),
    ],
)
def test_value_bytes_counts_each_value(values: list[Any], data_type: Any, sizes: list[Any]) -> None:
    array = pa.array(values, data_type)
    for start in range(len(values)):
        found = value_bytes(array.slice(start)).tolist()
        for size, expected in zip(found, sizes[start:], strict=True):
            assert expected is None or size == expected


def test_value_bytes_counts_shared_values_for_each_row() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 5]), pa.array(["ab", "c" * 9]))
    assert value_bytes(runs.slice(1)).tolist() == [2, 9, 9, 9]
    views: Any = pa.ListViewArray.from_arrays(
        pa.array([1, 0, 1], pa.int32()), pa.array([2, 3, 0], pa.int32()), pa.array(["a" * 9] * 3)
    )
    assert value_bytes(views).tolist() == [18, 27, 0]


def test_value_bytes_of_unions_are_those_of_their_children() -> None:
    types: Any = pa.array([0, 1, 0], pa.int8())
    children: list[Any] = [pa.array(["ab", "c" * 9]), pa.array([1])]
    dense = pa.UnionArray.from_dense(types, pa.array([0, 0, 1], pa.int32()), children)
    assert value_bytes(dense).tolist() == [2, 8, 9]
    children = [pa.array(["ab", "", "c" * 9]), pa.array([1, 2, 3])]
    assert value_bytes(pa.UnionArray.from_sparse(types, children)).tolist() == [2, 8, 9]


def test_value_bytes_does_not_decode_dictionaries() -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4000), pa.array(["x" * 10**7]))
    choices: Any = pa.ListArray.from_arrays(pa.array([0, 1, 4000], pa.int32()), texts)
    assert value_bytes(choices).tolist() == [10**7, 3999 * 10**7]
