"""Types in which columns are written."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.output.storable import can_cast, common_layout, storable_types


@pytest.mark.parametrize(
    ("data_type", "stored"),
    [
        (pa.timestamp("s"), pa.timestamp("ms")),
        (pa.dictionary(pa.int32(), pa.int64()), pa.int64()),
        (pa.string_view(), pa.string()),
        (pa.struct([("a", pa.binary_view())]), pa.struct([("a", pa.binary())])),
        (pa.map_(pa.string(), pa.string_view()), pa.map_(pa.string(), pa.string())),
        (pa.month_day_nano_interval(), None),
        (pa.struct([]), None),
        (pa.uuid(), pa.uuid()),
        (pa.float16(), pa.float16()),
    ],
)
def test_storable_type_is_the_one_that_comes_back(data_type: Any, stored: Any) -> None:
    assert storable_types([data_type, pa.int64()]) == {data_type: stored, pa.int64(): pa.int64()}


def test_storable_types_keep_the_names_of_items() -> None:
    data_type: Any = pa.list_(pa.field("item", pa.int8()))
    stored: Any = storable_types([data_type])[data_type]
    assert stored.value_field.name == "item"


def test_common_layout_has_no_views_and_no_run_ends() -> None:
    views = pa.large_list_view(pa.run_end_encoded(pa.int32(), pa.string_view()))
    assert common_layout(views) == pa.large_list(pa.string())
    assert common_layout(pa.uuid()) == pa.binary(16)


def test_can_cast_tries_the_conversion() -> None:
    assert can_cast(pa.string_view(), pa.string())
    assert not can_cast(pa.struct([("a", pa.int8())]), pa.int8())
