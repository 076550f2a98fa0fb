"""Differences over the same documents: value, interval and the regression rule."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.evals.comparison import (
    POWER,
    Difference,
    Rules,
    detectable_loss,
    holm,
    judged_together,
    paired,
)

RULES = Rules(margin=0.01, confidence=0.95)
VALUES = st.lists(
    st.tuples(st.sampled_from((0.0, 1.0)), st.sampled_from((0.0, 1.0))), min_size=1, max_size=200
)


def named(values: list[float]) -> dict[str, float]:
    return {f"t/{number}": value for number, value in enumerate(values)}


def test_mcnemar_has_value_of_a_worked_example() -> None:
    """15 documents got worse and 5 better: 2 * P(X <= 5) of Binomial(20, 1/2) is 43,400 / 2**20."""
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


def test_regression_is_a_loss_beyond_the_margin() -> None:
    before, now = [1.0] * 1000, [0.0] * 60 + [1.0] * 940
    assert paired(named(before), named(now), Rules(margin=0.03)).regression
    lenient = paired(named(before), named(now), Rules(margin=0.05))
    assert (lenient.certain, lenient.regression) == (True, False)
    assert not paired(named(now), named(before), Rules(margin=0.0)).regression


def test_regression_needs_mcnemar_beside_the_bootstrap() -> None:
    found = paired(named([1.0] * 5), named([0.0] * 5), RULES)
    assert (found.high, found.p_value) == (-1.0, pytest.approx(0.0625))
    assert not found.regression
    assert paired(named([1.0] * 6), named([0.0] * 6), RULES).regression


def test_other_values_have_the_p_value_of_random_signs() -> None:
    found = paired(named([0.5] * 50), named([0.25] * 50), RULES)
    assert found.p_value == pytest.approx(1 / 10_001)
    assert (found.low, found.high, found.regression) == (-0.25, -0.25, True)
    # five of five documents: 2 / 2**5 of all signs are as extreme
    few = paired(named([0.5] * 5), named([0.25] * 5), RULES)
    assert few.p_value == pytest.approx(1 / 16, abs=0.01)
    assert not few.regression


def test_p_value_of_random_signs_agrees_with_scipy() -> None:
    generator = np.random.default_rng(3)
    before = generator.choice([0.0, 0.25, 1.0], 80)
    now = np.clip(before - generator.choice([0.0, 0.25, -0.25], 80, p=[0.4, 0.4, 0.2]), 0, 1)
    found = paired(named(before.tolist()), named(now.tolist()), RULES)
    expected = stats.permutation_test(
        (now - before,),
        np.sum,
        permutation_type="samples",
        n_resamples=20_000,
        rng=generator,
    ).pvalue
    assert 0.001 < expected < 0.5
    assert found.p_value == pytest.approx(expected, abs=0.015)


@cache
def lost(documents: int, worse: int, better: int = 0, margin: float = 0.0) -> Difference:
    """A difference in which `worse` documents became wrong and `better` ones right."""
    same = documents - worse - better
    before = [1.0] * worse + [0.0] * better + [1.0] * same
    now = [0.0] * worse + [1.0] * better + [1.0] * same
    return paired(named(before), named(now), Rules(margin=margin))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_monotonous_and_bounded_by_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p_value, p_adjusted in zip(p_values, adjusted, strict=True):
        assert p_value <= p_adjusted <= min(1.0, len(p_values) * p_value + 1e-12)
    by_size = sorted(zip(p_values, adjusted, strict=True))
    assert [value for _, value in by_size] == sorted(value for _, value in by_size)


def test_holm_has_values_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_planted_flips_are_a_regression_exactly_where_scipy_says_so() -> None:
    tasks = 12
    verdicts = []
    for worse in range(1, 25):
        p_value = stats.binomtest(2, 2 + worse).pvalue
        differences = [lost(100, worse, better=2)] + [lost(100, 3, better=3)] * (tasks - 1)
        [found, *others] = judged_together(differences, RULES)
        assert found.p_adjusted == pytest.approx(min(1.0, tasks * p_value))
        assert found.regression is bool(tasks * p_value < 0.05)
        assert not any(other.regression for other in others)
        verdicts.append(found.regression)
    assert {True, False} == set(verdicts)


def test_false_alarms_of_many_tasks_are_as_rare_as_of_one() -> None:
    generator = np.random.default_rng(11)
    alarms = 0
    nights = 300
    for _ in range(nights):
        gains = generator.binomial(20, 0.5, size=20)
        differences = [lost(40, 20 - int(gain), int(gain)) for gain in gains]
        judged = judged_together(differences, RULES)
        alarms += any(difference.certain for difference in judged)
    assert alarms / nights <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / nights)


def test_margin_of_a_task_replaces_the_common_one() -> None:
    rules = Rules(margin=0.01, margins={"humaneval": 0.1})
    assert rules.of_task("mmlu").margin == 0.01
    assert rules.of_task("humaneval").margin == 0.1
    differences = [lost(1000, 60, margin=0.01), lost(1000, 60, margin=0.1)]
    judged = judged_together(differences, rules)
    assert [difference.regression for difference in judged] == [True, False]


@pytest.mark.parametrize(("documents", "share"), [(200, 0.05), (400, 0.2)])
def test_detectable_loss_is_found_with_its_power(documents: int, share: float) -> None:
    rules = Rules(margin=0.01)
    loss = detectable_loss(documents, round(share * documents), rules)
    assert loss is not None
    share = max(share, loss)
    generator = np.random.default_rng(7)
    worse_share = (share + loss) / 2
    found = 0
    trials = 200
    for _ in range(trials):
        worse, better, _same = generator.multinomial(
            documents, [worse_share, share - worse_share, 1 - share]
        )
        found += lost(documents, int(worse), int(better), margin=0.01).regression
    assert found / trials == pytest.approx(POWER, abs=0.1)


def test_too_few_documents_show_no_loss() -> None:
    assert detectable_loss(5, 0, RULES) is None
    assert detectable_loss(100, 10, Rules(margin=1.0)) is None


@given(VALUES)
def test_swapped_runs_have_the_negated_difference(values: list[tuple[float, float]]) -> None:
    before, now = named([one for one, _ in values]), named([other for _, other in values])
    there, back = paired(before, now, RULES), paired(now, before, RULES)
    assert there.value == -back.value
    assert (there.better, there.worse, there.p_value) == (back.worse, back.better, back.p_value)
    assert there.low <= there.value + 1e-12
    assert there.value <= there.high + 1e-12
    assert not (there.regression and back.regression)
    assert paired(before, now, RULES) == there


def test_paired_refuses_different_documents() -> None:
    with pytest.raises(ValueError, match="the same documents"):
        paired({"a": 1.0}, {"b": 1.0}, RULES)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_exact_binomial_sum(better: int, worse: int) -> None:
    changed = better + worse
    tail = sum(math.comb(changed, count) for count in range(min(better, worse) + 1))
    expected = min(1.0, 2 * tail / 2**changed)
    before = [0.0] * better + [1.0] * worse + [1.0]
    now = [1.0] * better + [0.0] * worse + [1.0]
    assert paired(named(before), named(now), RULES).p_value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_agrees_with_bootstrap_of_scipy(confidence: float) -> None:
    generator = np.random.default_rng(5)
    before = generator.choice([0.0, 0.25, 1.0], 400)
    now = generator.choice([0.0, 0.5, 1.0], 400)
    difference = paired(named(before.tolist()), named(now.tolist()), Rules(confidence=confidence))
    expected = stats.bootstrap(
        (now - before,),
        np.mean,
        n_resamples=10_000,
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    ).confidence_interval
    assert difference.value == pytest.approx(np.mean(now) - np.mean(before), abs=1e-12)
    assert difference.low == pytest.approx(expected.low, abs=0.005)
    assert difference.high == pytest.approx(expected.high, abs=0.005)


def test_interval_does_not_depend_on_the_order_of_documents() -> None:
    before = {f"t/{number}": float(number % 3 == 0) for number in range(60)}
    now = {f"t/{number}": float(number % 2 == 0) for number in range(60)}
    shuffled = dict(reversed(list(now.items())))
    assert paired(before, shuffled, RULES) == paired(before, now, RULES)


@pytest.mark.parametrize(
    ("rules", "regression"),
    [
        (Rules(margin=0.2, confidence=0.95), True),
        (Rules(margin=0.25, confidence=0.95), False),
        (Rules(margin=0.3, confidence=0.95), False),
    ],
)
def test_regression_needs_the_entire_interval_beyond_the_margin(
    rules: Rules, regression: bool
) -> None:
    difference = paired(named([0.5] * 50), named([0.25] * 50), rules)
    assert difference.certain
    assert difference.regression is regression
