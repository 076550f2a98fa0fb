"""Limits of what one row, and the rows of one shard, may hold in memory.

A file of some kilobytes can stand for any number of gigabytes: a compressed page, or one long text
that every row repeats. Rows beyond the limits fail one by one, before they are decoded.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.input.row_sizes import Sizes

MIB = 2**20
MAX_VALUE_BYTES = 64 * MIB  # of one value of a column
MAX_LINE_BYTES = 64 * MIB  # of one line of JSON
MAX_RANGE_BYTES = 512 * MIB  # of the rows of one shard
MAX_CHOICES = 1024
# of a row's choices, with the prompt once for each: all of them are encoded together
MAX_CHOICES_BYTES = 64 * MIB
# Values of a row beyond the limits that are kept: its id, above all.
KEPT_VALUE_BYTES = 1024


class RangeLimits:
    """Checks the rows of one range in order; holds what is left of its bytes."""

    def __init__(self) -> None:
        """All of MAX_RANGE_BYTES are left."""
        self._left = MAX_RANGE_BYTES

    def check(self, sizes: Mapping[str, Sizes], rows: int) -> dict[int, str]:
        """Returns why rows are beyond the limits, by position; the others count.

        Args:
            sizes: bytes of the values of each column.
            rows: of each column.
        """
        faults: dict[int, str] = {}
        row_sizes = np.zeros(rows, np.int64)
        for name, column_sizes in sizes.items():
            row_sizes += column_sizes
            for row in np.flatnonzero(column_sizes > MAX_VALUE_BYTES).tolist():
                faults[row] = (
                    f"column '{name}' has a value of {int(column_sizes[row]):,} bytes, more than "
                    f"the {MAX_VALUE_BYTES:,} that one may have; shorten it"
                )

        row_sizes[list(faults)] = 0
        total = np.cumsum(row_sizes)
        for row in np.flatnonzero((total > self._left) & (row_sizes > 0)).tolist():
            faults[row] = (
                f"the rows of its shard have more than the {MAX_RANGE_BYTES:,} bytes that one may "
                "have; use a smaller --shard-rows"
            )
        if rows:
            self._left = max(self._left - int(total[-1]), 0)
        return faults


def choices_fault(prompt: object, choices: object) -> str | None:
    """Returns why the choices of a row are beyond the limits; None if they are not."""
    if not isinstance(choices, list | tuple):
        return None
    if len(choices) > MAX_CHOICES:
        return f"choices: expected at most {MAX_CHOICES:,}, got {len(choices):,}"

    size = sum(_length(choice) for choice in choices) + _length(prompt) * len(choices)
    if size > MAX_CHOICES_BYTES:
        return (
            f"choices: expected at most {MAX_CHOICES_BYTES:,} characters, with the prompt once for "
            f"each, got {size:,}"
        )
    return None


def _length(value: object) -> int:
    if hasattr(value, "__len__"):
        return len(value)
    return 0
