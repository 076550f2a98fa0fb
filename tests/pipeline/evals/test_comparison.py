"""Differences over the same documents: their size, their interval, and what is called a regression."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evals.comparison import Rules, paired

RULES = Rules(margin=0.01, confidence=0.95)
VALUES = st.lists(
    st.tuples(st.sampled_from((0.0, 1.0)), st.sampled_from((0.0, 1.0))), min_size=1, max_size=200
)


def named(values: list[float]) -> dict[str, float]:
    return {f"t/{number}": value for number, value in enumerate(values)}


def test_mcnemar_against_a_worked_example() -> None:
    """15 documents got worse and 5 better: 2 * P(X <= 5), X of Binomial(20, 1/2), is 43,400 / 2**20."""
    before = [1.0] * 15 + [0.0] * 5 + [1.0] * 80
    now = [0.0] * 15 + [1.0] * 5 + [1.0] * 80
    found = paired(named(before), named(now), RULES)
    assert (found.better, found.worse, found.documents, found.value) == (
        5,
        15,
        100,
        pytest.approx(-0.1),
    )
    assert found.p_value == pytest.approx(43_400 / 2**20, abs=1e-12)
    # Normal approximation of the paired difference: sd = sqrt(0.2 - 0.01) / 10 = 0.0436
    assert (found.low, found.high) == (
        pytest.approx(-0.185, abs=0.012),
        pytest.approx(-0.015, abs=0.012),
    )


def test_a_loss_within_the_margin_is_no_regression_and_one_beyond_it_is() -> None:
    before, now = [1.0] * 1000, [0.0] * 60 + [1.0] * 940
    assert paired(named(before), named(now), Rules(margin=0.03)).regression
    lenient = paired(named(before), named(now), Rules(margin=0.05))
    assert (lenient.certain, lenient.regression) == (True, False)
    assert not paired(named(now), named(before), Rules(margin=0.0)).regression


def test_a_few_documents_never_make_a_regression_however_sure_the_bootstrap_is() -> None:
    found = paired(named([1.0] * 5), named([0.0] * 5), RULES)
    assert (found.high, found.p_value) == (-1.0, pytest.approx(0.0625))
    assert not found.regression
    assert paired(named([1.0] * 6), named([0.0] * 6), RULES).regression


def test_values_between_0_and_1_have_an_interval_and_no_mcnemar() -> None:
    found = paired(named([0.5] * 50), named([0.25] * 50), RULES)
    assert found.p_value is None
    assert (found.low, found.high, found.regression) == (-0.25, -0.25, True)


@given(VALUES)
def test_swapping_the_runs_turns_the_difference_round(values: list[tuple[float, float]]) -> None:
    before, now = named([one for one, _ in values]), named([other for _, other in values])
    there, back = paired(before, now, RULES), paired(now, before, RULES)
    assert there.value == -back.value
    assert (there.better, there.worse, there.p_value) == (back.worse, back.better, back.p_value)
    assert there.low <= there.value + 1e-12
    assert there.value <= there.high + 1e-12
    assert not (there.regression and back.regression)
    assert paired(before, now, RULES) == there


def test_other_documents_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="the same documents"):
        paired({"a": 1.0}, {"b": 1.0}, RULES)
