"""A distribution of non-negative numbers in constant memory, however many they are."""

import math
from collections import Counter
from dataclasses import dataclass, field

BINS_PER_DECADE = 20  # a quantile is at most 12 % above the true one
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(slots=True)
class Distribution:
    """Counts of numbers in bins of equal ratio; zeros and the largest number are exact."""

    count: int = 0
    not_zero: int = 0
    largest: float = 0.0
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, value: float) -> None:
        """Adds a number of at least 0; infinity is the largest."""
        self.count += 1
        if not value:
            return
        self.not_zero += 1
        self.largest = max(self.largest, value)
        if math.isfinite(value):
            self.bins[math.ceil(math.log10(value) * BINS_PER_DECADE)] += 1

    def quantile(self, share: float) -> float:
        """Returns a number that at least `share` of all numbers do not exceed.

        It is the upper end of a bin, or the largest number.
        """
        needed = math.ceil(share * self.count)
        covered = self.count - self.not_zero
        if covered >= needed:
            return 0.0
        for number in sorted(self.bins):
            covered += self.bins[number]
            if covered >= needed:
                return min(self.largest, 10 ** (number / BINS_PER_DECADE))
        return self.largest

    def quantiles(self) -> dict[str, float]:
        """Returns the median, 90 %, 99 % and the largest number; empty for none."""
        if not self.count:
            return {}
        result = {f"{share:.0%}": self.quantile(share) for share in QUANTILES}
        return {**result, "100%": self.largest}
