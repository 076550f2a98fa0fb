"""List arrays of many samples equal those that pyarrow builds from Python lists."""

import math
from array import array
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CommitError
from pipeline.output.list_arrays import (
    join_values,
    list_array,
    spread,
    sums_per_sample,
    with_leading_null,
)

SAMPLES = st.lists(st.none() | st.lists(st.floats(-50, 0, width=32), max_size=4), max_size=8)


def arrays(samples: list[Any]) -> list[Any]:
    return [None if sample is None else array("f", sample) for sample in samples]


@given(SAMPLES)
def test_list_array_equals_lists_of_samples(samples: list[Any]) -> None:
    joined = join_values(arrays(samples), pa.float32())
    lists = list_array(joined.lengths, pa.array(joined.values), joined.null)
    lists.validate(full=True)
    assert lists.to_pylist() == samples


@given(SAMPLES)
def test_leading_null_precedes_the_values_of_each_sample(samples: list[Any]) -> None:
    joined = join_values(arrays(samples), pa.float32())
    lengths, filled = with_leading_null(joined.lengths, joined.null)
    values = pa.array(spread(joined.values, filled), mask=~filled)
    assert list_array(lengths, values, joined.null).to_pylist() == [
        None if sample is None else [None, *sample] for sample in samples
    ]


@given(SAMPLES)
def test_sums_are_those_of_each_sample_alone(samples: list[Any]) -> None:
    joined = join_values(arrays(samples), pa.float32())
    sums = sums_per_sample(joined)
    assert sums.dtype == np.float64
    for sample, total in zip(samples, sums, strict=True):
        assert total == pytest.approx(math.fsum(sample or []), abs=1e-9)


def test_sums_do_not_depend_on_other_samples() -> None:
    sample = [-0.1, -1e-7, -33.3]
    alone = sums_per_sample(join_values(arrays([sample]), pa.float32()))
    beside = sums_per_sample(join_values(arrays([[-1e6] * 3, sample, None]), pa.float32()))
    assert beside[1] == alone[0]


def test_list_array_rejects_more_values_than_offsets_address() -> None:
    lengths = np.array([2**31 - 1, 1], np.int32)
    values = pa.array(np.zeros(1, np.float32))
    with pytest.raises(CommitError, match=r"2147483648 values in one column.*--shard-rows"):
        list_array(lengths, values, np.zeros(2, np.bool_))
