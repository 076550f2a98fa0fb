"""Samples → rows: how many are answered, how many failed, and whether that is within the budget."""

from dataclasses import dataclass
from fractions import Fraction

from actors.protocol.messages import RowRef

SMALL_INPUT_FAILURES = 10  # within every rate above 0, if at most half of all rows


def error_budget(rows: int, max_error_rate: float) -> int:
    """Returns how many of `rows` may fail: the largest whole number within the rate.

    The rate is taken as the decimal fraction that the user writes, so 0.29 allows 29 of 100 rows.
    """
    return int(Fraction(repr(max_error_rate)) * rows)


def allowed_failures(rows: int, max_error_rate: float) -> int:
    """Returns how many of `rows` may fail in a run: `error_budget`, and some of a small input.

    A share of few rows is less than one row. A rate above 0 therefore allows up to
    `SMALL_INPUT_FAILURES` failed rows, as long as they are at most half of all.
    """
    budget = error_budget(rows, max_error_rate)
    if max_error_rate == 0:
        return budget
    return max(budget, min(SMALL_INPUT_FAILURES, rows // 2))


@dataclass(slots=True)
class _OpenRow:
    """A row some of whose samples, or windows, are in."""

    missing: int
    has_failed: bool


@dataclass(frozen=True, slots=True)
class RowsDone:
    """Rows that are complete since one more sample or window is in: none or one."""

    answered: int
    failed: int


NO_ROW = RowsDone(0, 0)
GOOD_ROW = RowsDone(1, 0)
FAILED_ROW = RowsDone(1, 1)


class RowCounts:
    """Counts a row when all its samples and windows are in; it failed when one of them did."""

    def __init__(self) -> None:
        self.answered = 0  # failed ones included
        self.failed = 0
        self.begun = 0.0  # rows, each by its share of samples and windows that are in
        self._open: dict[tuple[int, int], _OpenRow] = {}

    def has_failed(self, ref: RowRef) -> bool:
        """Whether a row that is not complete has failed by now."""
        row = self._open.get((ref.shard, ref.row))
        return row is not None and row.has_failed

    def add(self, ref: RowRef, *, is_error: bool) -> RowsDone:
        """Counts a sample or window; returns what it adds to the counts of rows."""
        requests = ref.samples * ref.windows
        self.begun += 1 / requests
        if requests > 1:
            row = self._open.setdefault((ref.shard, ref.row), _OpenRow(requests, False))
            row.missing -= 1
            row.has_failed |= is_error
            if row.missing:
                return NO_ROW
            del self._open[ref.shard, ref.row]
            is_error = row.has_failed

        done = GOOD_ROW
        if is_error:
            done = FAILED_ROW
        self.answered += done.answered
        self.failed += done.failed
        return done
