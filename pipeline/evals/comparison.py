"""Difference of two runs over the same documents, with its uncertainty and the regression rule.

Values are paired by document: most of the variance of a score comes from the choice of documents,
and cancels in the difference. The interval is a bootstrap over documents; for binary values,
McNemar's exact test gives the probability of such an unequal change by chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

RESAMPLES = 10_000
SEED = 0  # of the bootstrap: the same runs give the same interval


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for calling a difference a regression."""

    margin: float = 0.01  # tolerated loss, in units of the metric
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric now less before, over the same documents."""

    value: float
    low: float  # ends of the confidence interval
    high: float
    better: int  # documents
    worse: int
    documents: int
    # McNemar's, two-sided; None for documents with values between 0 and 1
    p_value: float | None
    # zero is outside the interval, and the p-value, if any, is below 1 - confidence
    certain: bool
    regression: bool  # certain, and the entire interval is a loss beyond the margin


def paired(before: Mapping[str, float], now: Mapping[str, float], rules: Rules) -> Difference:
    """Returns the difference of two runs.

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

    p_value: float | None = None
    values = {*before.values(), *now.values()}
    if values <= {0.0, 1.0}:
        p_value = _mcnemar(better, worse)

    is_significant = p_value is None or p_value < 1 - rules.confidence
    certain = is_significant and (high < 0 or low > 0)
    return Difference(
        value=float(changes.mean()),
        low=low,
        high=high,
        better=better,
        worse=worse,
        documents=len(changes),
        p_value=p_value,
        certain=certain,
        regression=certain and high < -rules.margin,
    )


def _bootstrap_interval(changes: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
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
