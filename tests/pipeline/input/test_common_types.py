"""Types that hold the values of two types."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.common_types import common_type

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
NUMBERS = (
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
)


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (pa.string(), pa.null(), pa.string()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.string_view(), pa.string()),
        (pa.string(), DICTIONARY, pa.string()),
        (DICTIONARY, pa.large_string(), pa.large_string()),
        (DICTIONARY, pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.binary(), pa.binary_view(), pa.binary()),
        (pa.string(), pa.binary(), None),
        (pa.string(), pa.int64(), None),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint64(), pa.int64(), None),
        (pa.int64(), pa.float64(), None),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.bool_(), pa.int8(), None),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (pa.list_(pa.int32(), 2), pa.list_(pa.int32()), pa.list_(pa.int32())),
        (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
        (
            pa.struct([("a", pa.null())]),
            pa.struct([("a", DICTIONARY)]),
            pa.struct([("a", DICTIONARY)]),
        ),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), None),
        (
            pa.map_(pa.string(), pa.int8()),
            pa.map_(pa.large_string(), pa.int32()),
            pa.map_(pa.large_string(), pa.int32()),
        ),
        (pa.timestamp("us"), pa.timestamp("ns"), None),
        (pa.decimal128(4, 2), pa.decimal128(4, 2), pa.decimal128(4, 2)),
        (pa.decimal128(4, 2), pa.decimal128(5, 2), None),
    ],
)
def test_common_type_is_the_narrowest_without_loss(first: Any, second: Any, common: Any) -> None:
    assert common_type(first, second) == common
    assert common_type(second, first) == common


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.data())
def test_common_type_changes_no_number(first: Any, second: Any, data: st.DataObject) -> None:
    common = common_type(first, second)
    if common is None:
        return
    for data_type in (first, second):
        number = data.draw(_numbers(data_type))
        [converted] = pa.array([number], data_type).cast(common).to_pylist()
        assert Decimal(converted) == Decimal(number)


def _numbers(data_type: Any) -> st.SearchStrategy[Any]:
    width = data_type.bit_width
    if pa.types.is_floating(data_type):
        return st.floats(width=width, allow_nan=False, allow_infinity=False)
    if pa.types.is_signed_integer(data_type):
        return st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    return st.integers(0, 2**width - 1)
