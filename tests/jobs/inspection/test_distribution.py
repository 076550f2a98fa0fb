"""distribution.py: quantiles in constant memory, against sorted numbers."""

import math

from hypothesis import given
from hypothesis import strategies as st

from jobs.inspection.distribution import BINS_PER_DECADE, QUANTILES, Distribution

NUMBERS = st.lists(st.just(0.0) | st.floats(1e-12, 1e6), min_size=1, max_size=200)


@given(NUMBERS)
def test_quantile_is_at_most_a_bin_above_the_true_one(numbers: list[float]) -> None:
    distribution = Distribution()
    for number in numbers:
        distribution.add(number)
    ordered = sorted(numbers)
    width = 10 ** (1 / BINS_PER_DECADE)
    for share in QUANTILES:
        exact = ordered[math.ceil(share * len(ordered)) - 1]
        assert exact * (1 - 1e-9) <= distribution.quantile(share) <= exact * width * (1 + 1e-9)
    assert distribution.quantiles()["100%"] == max(numbers)
    assert distribution.not_zero == sum(number > 0 for number in numbers)


def test_infinity_is_the_largest_number() -> None:
    distribution = Distribution()
    for number in (0.0, 1.0, math.inf):
        distribution.add(number)
    assert distribution.quantile(0.5) == 1.0
    assert distribution.quantile(0.99) == math.inf


def test_empty_distribution_has_no_quantiles() -> None:
    assert Distribution().quantiles() == {}
