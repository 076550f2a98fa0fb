"""Differences of two runs over the same documents, with their uncertainty and the regression rule.

Values are paired by document: most of the variance of a score comes from the choice of documents,
and cancels in the difference. The interval is a bootstrap over documents. The p-value is the
probability of so unequal a change by chance: McNemar's exact test for binary values, and for others
the same test by random signs. Of several differences the p-values are adjusted (Holm 1979), so that
a night of many tasks raises a false alarm as rarely as a night of one.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm

RESAMPLES = 10_000
SEED = 0  # of bootstrap and random signs: the same runs give the same interval and p-value
POWER = 0.8  # probability with which `detectable_loss` is found
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for calling a difference a regression."""

    margin: float = 0.01  # tolerated loss, in units of the metric
    confidence: float = 0.95
    margins: Mapping[str, float] = field(default_factory=dict)  # of single tasks and groups

    def of_task(self, name: str) -> "Rules":
        """Returns the rules with the margin of a task or group as their margin."""
        return dataclasses.replace(self, margin=self.margins.get(name, self.margin))


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric now less before, over the same documents."""

    value: float
    low: float  # ends of the confidence interval
    high: float
    better: int  # documents
    worse: int
    documents: int
    p_value: float  # two-sided
    p_adjusted: float  # for the number of differences that are judged together
    margin: float  # accepted loss
    # smallest loss that would be a regression with probability `POWER`, at this rate of changes;
    # None: no loss would be
    detectable_loss: float | None
    certain: bool  # zero is outside the interval, and the adjusted p-value is below 1 - confidence
    regression: bool  # certain, and the entire interval is a loss beyond the margin


def paired(before: Mapping[str, float], now: Mapping[str, float], rules: Rules) -> Difference:
    """Returns the difference of two runs, judged alone.

    The p-value counts beside the interval: the bootstrap alone is overconfident when few documents
    changed.

    Args:
        before: value of each document in the earlier run.
        now: value of each document in the later run.
        rules: margin and confidence.

    Raises:
        ValueError: the documents differ, or there are none.
    """
    if before.keys() != now.keys() or not now:
        raise ValueError(f"expected values of the same documents, got {len(before)} and {len(now)}")

    changes = np.array([now[name] - before[name] for name in now])
    low, high = _bootstrap_interval(changes, rules.confidence)
    better = int((changes > 0).sum())
    worse = int((changes < 0).sum())

    values = {*before.values(), *now.values()}
    is_binary = values <= {0.0, 1.0}
    p_value = _mcnemar(better, worse) if is_binary else _random_signs(changes)
    difference = Difference(
        value=float(changes.mean()),
        low=low,
        high=high,
        better=better,
        worse=worse,
        documents=len(changes),
        p_value=p_value,
        p_adjusted=p_value,
        margin=rules.margin,
        detectable_loss=detectable_loss(len(changes), better + worse, rules),
        certain=False,
        regression=False,
    )
    return _judged(difference, rules)


def judged_together(differences: Sequence[Difference], rules: Rules) -> tuple[Difference, ...]:
    """Returns the differences, each judged by its p-value adjusted for their number.

    Args:
        differences: all that can raise the alarm.
        rules: their confidence; each difference has its own margin.
    """
    p_values = [difference.p_value for difference in differences]
    strictest = dataclasses.replace(
        rules, confidence=1 - (1 - rules.confidence) / len(p_values or [1])
    )
    judged = []
    for difference, p_adjusted in zip(differences, holm(p_values), strict=True):
        of_difference = dataclasses.replace(strictest, margin=difference.margin)
        changed = difference.better + difference.worse
        adjusted = dataclasses.replace(
            difference,
            p_adjusted=p_adjusted,
            detectable_loss=detectable_loss(difference.documents, changed, of_difference),
        )
        judged.append(_judged(adjusted, rules))
    return tuple(judged)


def _judged(difference: Difference, rules: Rules) -> Difference:
    is_significant = difference.p_adjusted < 1 - rules.confidence
    certain = is_significant and (difference.high < 0 or difference.low > 0)
    regression = certain and difference.high < -difference.margin
    return dataclasses.replace(difference, certain=certain, regression=regression)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values adjusted for their number: Holm's step-down procedure (1979).

    The probability of one or more below a level by chance is at most that level, whatever the
    dependence between the tests.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        remaining = len(p_values) - rank
        largest = max(largest, min(1.0, remaining * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_loss(documents: int, changed: int, rules: Rules) -> float | None:
    """Returns the smallest loss that is found as a regression with probability `POWER`.

    By the normal approximation of the paired difference, whose variance is the share of documents
    that change, divided by their number.

    Args:
        documents: of both runs.
        changed: of them, those whose value changed in either direction; a larger loss changes more.
        rules: margin and confidence.

    Returns:
        The loss in units of a binary metric; None if no loss of up to 1 is.
    """
    alpha = 1 - rules.confidence
    # the exact test needs so many documents that all become worse
    fewest = math.ceil(math.log2(2 / alpha)) / documents
    distance = float(norm.ppf(1 - alpha / 2) + norm.ppf(POWER))
    losses = np.linspace(0, 1, 1001)
    shares = np.maximum(changed / documents, losses)
    needed = rules.margin + distance * np.sqrt(shares / documents)
    is_found = losses >= np.maximum(fewest, needed)
    return float(losses[is_found.argmax()]) if is_found.any() else None


def _bootstrap_interval(changes: Values, confidence: float) -> tuple[float, float]:
    """Returns the interval of the mean.

    Draws the multiplicity of each distinct change in a resample, which equals drawing documents and
    is far cheaper.
    """
    values, counts = np.unique(changes, return_counts=True)
    documents = len(changes)
    generator = np.random.default_rng(SEED)
    multiplicities = generator.multinomial(documents, counts / documents, RESAMPLES)
    means = multiplicities @ values / documents
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _mcnemar(better: int, worse: int) -> float:
    changed = better + worse
    if not changed:
        return 1.0
    return float(binomtest(better, changed).pvalue)


def _random_signs(changes: Values) -> float:
    """Returns the two-sided p-value of the mean under random signs of the changes.

    Draws the number of positive signs of each distinct size, which equals drawing signs.
    """
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    generator = np.random.default_rng(SEED)
    positive = generator.binomial(counts, 0.5, (RESAMPLES, len(counts)))
    sums = (2 * positive - counts) @ sizes
    observed = abs(changes.sum())
    tolerance = 1e-9 * max(observed, 1.0)  # equal sums, added in another order
    as_extreme = int((np.abs(sums) >= observed - tolerance).sum())
    return (1 + as_extreme) / (1 + RESAMPLES)
