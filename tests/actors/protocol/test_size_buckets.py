"""size_buckets.py: bucket sizes cover every length and waste little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.size_buckets import CHUNK, bucket_size, padded_length, prompt_size_buckets


def test_prompt_size_buckets_have_four_steps_per_octave() -> None:
    assert prompt_size_buckets(60) == (16, 20, 24, 28, 32, 40, 48, 56, 64)
    assert prompt_size_buckets(16) == (16,)


@given(st.integers(1, 10_000), st.data())
def test_bucket_size_is_the_smallest_that_holds_a_length(longest: int, data: st.DataObject) -> None:
    sizes = prompt_size_buckets(longest)
    length = data.draw(st.integers(1, longest))
    size = bucket_size(length, sizes)
    assert size in sizes
    assert size >= length
    assert all(smaller < length for smaller in sizes if smaller < size)
    if length >= sizes[0]:
        assert size <= length * 1.25


def test_bucket_size_rejects_lengths_beyond_the_largest() -> None:
    with pytest.raises(ValueError, match="length 17 is beyond the largest bucket size 16"):
        bucket_size(17, (16,))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        prompt_size_buckets(0)


@given(st.integers(0, 10_000))
def test_padded_length_is_whole_chunks(length: int) -> None:
    padded = padded_length(length)
    assert padded % CHUNK == 0
    assert length <= padded < length + CHUNK
