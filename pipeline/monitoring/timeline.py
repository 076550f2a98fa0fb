"""Sums amounts over equal spans of time; the number of spans is bounded for runs of any length.

Does not depend on what the amounts are.
"""

from array import array
from collections.abc import Mapping

import numpy as np

MOST_SPANS = 120
FIRST_SPAN_S = 0.25
ROUNDING_S = 1e-9


class Timeline:
    """Named series over one time axis that begins at 0.

    When the axis is full, pairs of spans become one.
    """

    def __init__(self, most_spans: int = MOST_SPANS, span_s: float = FIRST_SPAN_S) -> None:
        """`most_spans`: even.

        Between half and all of them are in use once time has reached them.
        """
        self._max_spans = most_spans
        self.span_s = span_s
        self._series: dict[str, array[float]] = {}

    def add(self, name: str, at_s: float, amount: float = 1.0) -> None:
        """Adds `amount` to the span that contains `at_s`."""
        self.add_all({name: amount}, at_s)

    def add_all(self, amounts: Mapping[str, float], at_s: float) -> None:
        """Adds the amount of each series to the span that contains `at_s`."""
        self._reach(at_s)
        span = int(at_s / self.span_s)
        for name, amount in amounts.items():
            self._of(name)[span] += amount

    def spread(self, name: str, from_s: float, to_s: float, amount: float) -> None:
        """Adds `amount` evenly to the time from `from_s` to `to_s`."""
        if to_s <= from_s:
            self.add(name, to_s, amount)
            return
        self._reach(to_s)
        series = self._of(name)
        per_s = amount / (to_s - from_s)
        first = int(from_s / self.span_s)
        last = int(to_s / self.span_s)
        if first == last:
            series[first] += amount
            return
        series[first] += ((first + 1) * self.span_s - from_s) * per_s
        series[last] += (to_s - last * self.span_s) * per_s
        if last - first > 1:
            np.frombuffer(series)[first + 1 : last] += self.span_s * per_s

    def ends(self, until_s: float) -> list[float]:
        """Returns when each span up to `until_s` ends.

        The last one ends there. At least one, none of them empty.
        """
        self._reach(until_s)
        ends = [self.span_s * (index + 1) for index in range(int(until_s / self.span_s))]
        if not ends or until_s - ends[-1] >= ROUNDING_S:
            ends.append(until_s)
        return ends

    def sums(self, name: str, until_s: float) -> list[float]:
        """Returns the sum of each span of `ends(until_s)`.

        What falls on its very end belongs to the last one.
        """
        count = len(self.ends(until_s))
        series = self._of(name)
        return [*series[: count - 1], sum(series[count - 1 :])]

    def _of(self, name: str) -> "array[float]":
        if name not in self._series:
            self._series[name] = array("d", bytes(8 * self._max_spans))
        return self._series[name]

    def _reach(self, at_s: float) -> None:
        while at_s >= self.span_s * self._max_spans:
            self.span_s *= 2
            for name, series in self._series.items():
                pairs = (
                    series[index] + series[index + 1] for index in range(0, self._max_spans, 2)
                )
                self._series[name] = array("d", [*pairs, *bytes(self._max_spans // 2)])
