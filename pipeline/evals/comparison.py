"""Two runs over the same documents → what changed, how sure that is, and whether it is a regression. Knows no files.

The documents are the same, so that their differences are what is looked at: most of the chance that
is in a score is in the choice of documents, and cancels. The interval is a bootstrap over
documents; where a document is either right or wrong, McNemar's exact test says how likely so
lopsided a change is by chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

RESAMPLES = 10_000
SEED = 0  # of the bootstrap: the same runs give the same interval


@dataclass(frozen=True, slots=True)
class Rules:
    """When a difference is called a regression."""

    margin: float = 0.01  # of the metric: what may be lost
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
    # McNemar's, two-sided; None where documents are worth something between 0 and 1
    p_value: float | None
    # zero is outside the interval, and the p-value, where there is one, is below 1 - confidence
    certain: bool
    regression: bool  # a certain loss that is larger than the margin at the whole of the interval


def paired(before: Mapping[str, float], now: Mapping[str, float], rules: Rules) -> Difference:
    """Returns the difference of two runs, from each document's value in both.

    The p-value counts beside the interval: the bootstrap alone is too sure of itself when few
    documents changed.

    Raises:
        ValueError: not the same documents, or none.
    """
    if before.keys() != now.keys() or not now:
        raise ValueError(f"expected values of the same documents, got {len(before)} and {len(now)}")
    changes = np.array([now[name] - before[name] for name in now])
    low, high = _interval(changes, rules.confidence)
    better, worse = int((changes > 0).sum()), int((changes < 0).sum())
    binary = set(before.values()) | set(now.values()) <= {0.0, 1.0}
    p_value = _mcnemar(better, worse) if binary else None
    certain = (high < 0 or low > 0) and (p_value is None or p_value < 1 - rules.confidence)
    regression = certain and high < -rules.margin
    return Difference(
        float(changes.mean()), low, high, better, worse, len(changes), p_value, certain, regression
    )


def _interval(
    changes: "np.ndarray[tuple[int], np.dtype[np.float64]]", confidence: float
) -> tuple[float, float]:
    """Draws how often each distinct change comes in a resample, which is the same as drawing documents and far cheaper."""
    values, counts = np.unique(changes, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(len(changes), counts / len(changes), RESAMPLES)
    low, high = np.quantile(
        drawn @ values / len(changes), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    return float(low), float(high)


def _mcnemar(better: int, worse: int) -> float:
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
