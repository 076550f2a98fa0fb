"""Counts lengths in a fixed set of bins whose width grows with the length."""

from collections import Counter


def length_bin(length: int) -> int:
    """Returns the lower end of the bin of `length`: exact up to 8, then four to each doubling.

    Powers of two end bins.
    """
    shift = _shift(length)
    return ((length - 1) >> shift << shift) + 1


def histogram(counts: Counter[int]) -> list[dict[str, int]]:
    """Returns the bins, ascending: `rows` samples of lengths `from` to `to`.

    `counts`: samples by lower end of their bin.
    """
    bins = []
    for low in sorted(counts):
        width = 1 << _shift(low)
        bins.append({"from": low, "to": low - 1 + width, "rows": counts[low]})
    return bins


def _shift(length: int) -> int:
    """Returns the binary logarithm of the width of the bin of `length`."""
    return max(0, (length - 1).bit_length() - 3)
