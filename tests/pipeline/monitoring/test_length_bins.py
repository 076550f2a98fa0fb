from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitoring.length_bins import histogram, length_bin


def test_length_bin_is_exact_up_to_eight() -> None:
    assert [length_bin(length) for length in range(9)] == list(range(9))


@pytest.mark.parametrize(
    ("length", "low"), [(9, 9), (10, 9), (11, 11), (16, 15), (17, 17), (20, 17), (21, 21)]
)
def test_length_bin_has_four_bins_per_doubling(length: int, low: int) -> None:
    assert length_bin(length) == low


@given(st.integers(0, 20))
def test_length_bin_ends_at_powers_of_two(exponent: int) -> None:
    assert length_bin(2**exponent) <= 2**exponent < length_bin(2**exponent + 1)


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_histogram_bins_are_disjoint_and_hold_their_lengths(lengths: list[int]) -> None:
    bins = histogram(Counter(map(length_bin, lengths)))

    for counted in bins:
        in_bin = [length for length in lengths if counted["from"] <= length <= counted["to"]]
        assert len(in_bin) == counted["rows"]
    assert sum(counted["rows"] for counted in bins) == len(lengths)


def test_histogram_is_ascending() -> None:
    assert histogram(Counter({9: 2, 3: 1})) == [
        {"from": 3, "to": 3, "rows": 1},
        {"from": 9, "to": 10, "rows": 2},
    ]
