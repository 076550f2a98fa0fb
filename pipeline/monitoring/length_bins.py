"""Lengths → a histogram of few bins that grow with the length, whatever the number of samples.

Knows no run and no plot.
"""

from collections import Counter


def length_bin(length: int) -> int:
    """Returns the lower end of the bin of `length`: exact up to 8, then four to each doubling.

    Powers of two end bins.
    """
    fine = max(0, (length - 1).bit_length() - 3)
    return ((length - 1) >> fine << fine) + 1


def histogram(counts: Counter[int]) -> list[dict[str, int]]:
    """Returns the bins, ascending: `rows` samples of lengths `from` to `to`.

    `counts`: samples by lower end of their bin.
    """
    ends = {low: low - 1 + (1 << max(0, (low - 1).bit_length() - 3)) for low in counts}
    return [{"from": low, "to": ends[low], "rows": counts[low]} for low in sorted(counts)]
