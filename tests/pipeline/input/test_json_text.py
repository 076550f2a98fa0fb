"""Arrow values as JSON text."""

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from pipeline.input.json_text import (
    column_to_json_text,
    is_json_text,
    json_text_field,
    to_json_text,
)


@pytest.mark.parametrize(
    ("values", "data_type", "expected"),
    [
        ([2**53 + 1, None], pa.int64(), [2**53 + 1, None]),
        ([2**64 - 1], pa.uint64(), [2**64 - 1]),
        ([1.5], pa.float16(), [1.5]),
        (["é", None], pa.string_view(), ["é", None]),
        ([b"\xff"], pa.binary(), ["/w=="]),
        ([Decimal("1.50")], pa.decimal128(3, 2), ["1.50"]),
        ([1], pa.timestamp("ns", "UTC"), ["1970-01-01 00:00:00.000000001Z"]),
        ([1], pa.duration("ns"), ["1"]),
        ([1], pa.date32(), ["1970-01-02"]),
        (
            [{"a": [{"b": b"x"}, None]}, None],
            pa.struct([("a", pa.list_(pa.struct([("b", pa.binary())])))]),
            [{"a": [{"b": "eA=="}, None]}, None],
        ),
        ([[("k", 1)], None], pa.map_(pa.string(), pa.int8()), [[{"key": "k", "value": 1}], None]),
        ([[1, 2], None], pa.list_(pa.int8(), 2), [[1, 2], None]),
        (["a", None, "a"], pa.dictionary(pa.int8(), pa.string()), ["a", None, "a"]),
        ([None, None], pa.null(), [None, None]),
    ],
)
def test_column_to_json_text_keeps_every_value(
    values: list[Any], data_type: Any, expected: list[Any]
) -> None:
    chunk = pa.array(values, data_type)
    column = pa.chunked_array([chunk, chunk.slice(1)])
    texts: list[Any] = column_to_json_text(column).to_pylist()
    parsed = [None if text is None else json.loads(text) for text in texts]
    assert parsed == [*expected, *expected[1:]]


def test_json_text_is_recognised_by_its_field() -> None:
    assert is_json_text(json_text_field("x"))
    assert not is_json_text(pa.field("x", pa.string()))


def test_lone_surrogates_are_escaped() -> None:
    assert to_json_text(["\ud800", None]).to_pylist() == ['"\\ud800"', None]


def test_values_of_unions_and_runs_are_json() -> None:
    union = pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()),
        pa.array([0, 0, 1], pa.int32()),
        [pa.array([1, 2]), pa.array([b"\xff"])],
    )
    assert column_to_json_text(pa.chunked_array([union])).to_pylist() == ["1", '"/w=="', "2"]
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3]), pa.array(["a", None]))
    assert column_to_json_text(pa.chunked_array([runs])).to_pylist() == ['"a"', '"a"', None]


def test_dictionary_without_entries_within_a_null_struct_is_null() -> None:
    data_type = pa.struct([("a", pa.dictionary(pa.int32(), pa.int64()))])
    column = pa.chunked_array([pa.array([{"a": None}, None], data_type)])
    assert column_to_json_text(column).to_pylist() == ['{"a": null}', None]
