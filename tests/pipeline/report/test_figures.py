import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.figures import (
    TABLE_ROWS,
    compact,
    duration,
    join_spans,
    percent,
    quantile,
    share,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.0312, "3.1 %"),
        (0.00004, "0.004 %"),
        (0.9996, "100.0 %"),
        (0.994, "99.4 %"),
        (math.nan, "–"),
    ],
)
def test_percentages_keep_significant_digits(value: float, words: str) -> None:
    assert percent(value).replace("\u00a0", " ") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (12.4, "12 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (18_180, "5 h 03 min"),
        (6.84e6, "1,900 h"),
    ],
)
def test_duration_units_follow_their_size(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (950, "950"), (1234, "1.23k"), (30e6, "30M"), (5.55e9, "5.55G"), (2e12, "2T")],
)
def test_numbers_on_axes_are_short(value: float, words: str) -> None:
    assert compact(value) == words


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=120))
def test_joined_spans_hold_the_same_sums(values: list[int]) -> None:
    ends = [1.5 * number for number in range(1, len(values) + 1)]
    spans = join_spans({"s": ends, "rows": [float(value) for value in values]})
    assert sum(spans["rows"]) == sum(values)
    assert spans["s"][-1] == ends[-1]
    assert len(spans["s"]) == len(spans["rows"]) <= TABLE_ROWS


def test_quantiles_are_the_upper_ends_of_their_bins() -> None:
    histogram = [
        {"from": 1, "to": 1, "rows": 50},
        {"from": 9, "to": 10, "rows": 49},
        {"from": 449, "to": 512, "rows": 1},
    ]
    assert [quantile(histogram, at) for at in (0.1, 0.5, 0.51, 0.99, 1.0)] == [1, 1, 10, 10, 512]


def test_share_of_zero_is_undefined() -> None:
    assert share([1, 1], [2, 0]).tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
