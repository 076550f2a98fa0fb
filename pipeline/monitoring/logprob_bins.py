"""Counts log-probs of tokens in bins of equal width, in constant memory."""

from array import array

import numpy as np

BIN_WIDTH = 0.25  # natural logarithm
LOWEST = -12.0  # the first bin holds this and everything below
BINS = round(-LOWEST / BIN_WIDTH)
BUFFERED_TOKENS = 65_536


class LogprobCounts:
    """Counts of log-probs. NumPy counts many at once: rows wait in a buffer."""

    def __init__(self) -> None:
        """Starts with no token."""
        self._counts = np.zeros(BINS, np.int64)
        self._buffer = array("f")

    def add(self, logprobs: "array[float]") -> None:
        """Adds the log-probs of a row's tokens, float32; those that are not a number are left out.

        Args:
            logprobs: natural logarithms, at most 0.
        """
        self._buffer.extend(logprobs)
        if len(self._buffer) >= BUFFERED_TOKENS:
            self._counts += _bin_counts(self._buffer)
            self._buffer = array("f")

    def histogram(self) -> list[dict[str, float | int | None]]:
        """Returns the bins with tokens, ascending: `tokens` with log-probs above `from` to `to`.

        `from` is None for the lowest bin, which has no end.
        """
        counts = self._counts + _bin_counts(self._buffer)
        bins: list[dict[str, float | int | None]] = []
        for number in np.flatnonzero(counts).tolist():
            end = LOWEST + (number + 1) * BIN_WIDTH
            begin = None
            if number:
                begin = end - BIN_WIDTH
            bins.append({"from": begin, "to": end, "tokens": int(counts[number])})
        return bins


def _bin_counts(logprobs: "array[float]") -> np.ndarray:
    values = np.array(logprobs, np.float64)
    values = values[~np.isnan(values)]
    bounded = np.clip(values, LOWEST, 0.0)
    numbers = np.ceil((bounded - LOWEST) / BIN_WIDTH).astype(int) - 1
    return np.bincount(np.maximum(numbers, 0), minlength=BINS)
