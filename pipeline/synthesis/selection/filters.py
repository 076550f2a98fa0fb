"""Stages `generation` and `filter`: run errors, length, finish reason, log-prob, patterns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.synthesis.columns import ERROR_COLUMNS
from pipeline.synthesis.rejections import Rejection, shortened
from pipeline.synthesis.selection.patterns import Pattern
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import StageResult

Mask = npt.NDArray[np.bool_]
Column = Callable[[pa.Table], Any]
Comparison = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class _Filter:
    """One filter."""

    reason: str  # of samples that do not pass
    passes: Callable[[pa.Table], Mask]
    detail_column: str | None = None  # whose value is the detail of a rejection


def generation(table: pa.Table) -> StageResult:
    """Passes what was completed; the reason for a failed row is its error code."""
    columns = [table[name].to_pylist() for name in ERROR_COLUMNS]
    verdicts: list[Rejection | None] = []
    for status, code, message in zip(*columns, strict=True):
        if status == "ok":
            verdicts.append(None)
            continue
        detail = None
        if message is not None:
            detail = shortened(message)
        verdicts.append(Rejection("generation", str(code), detail))
    return StageResult(table, verdicts)


class Filters:
    """All filters of a selection."""

    def __init__(self, rules: SelectionRules) -> None:
        """Checks the patterns.

        Raises:
            ConfigError: a pattern is not valid.
        """
        self._filters = [
            *_bounds("chars", _chars, rules.min_chars, rules.max_chars),
            *_bounds(
                "completion_tokens",
                _column("completion_tokens"),
                rules.min_completion_tokens,
                rules.max_completion_tokens,
                detail_column="completion_tokens",
            ),
            *_bounds(
                "mean_logprob",
                _column("mean_logprob"),
                rules.min_mean_logprob,
                rules.max_mean_logprob,
                detail_column="mean_logprob",
            ),
        ]
        if rules.finish_reasons:
            passes = _one_of("finish_reason", rules.finish_reasons)
            self._filters.append(_Filter("finish_reason", passes, "finish_reason"))
        for source in rules.must_match:
            pattern = Pattern(source, "--must-match")
            self._filters.append(_Filter(f"no match: {source}", _matching(pattern)))
        for source in rules.must_not_match:
            pattern = Pattern(source, "--must-not-match")
            self._filters.append(_Filter(f"match: {source}", _not_matching(pattern)))

    def __call__(self, table: pa.Table) -> StageResult:
        """Returns a verdict on every sample; the first filter that it fails is the reason."""
        verdicts: list[Rejection | None] = [None] * table.num_rows
        for check in self._filters:
            reason = shortened(check.reason)
            for position in np.flatnonzero(~check.passes(table)).tolist():
                if verdicts[position] is None:
                    detail = _detail(table, check.detail_column, position)
                    verdicts[position] = Rejection("filter", reason, detail)
        return StageResult(table, verdicts)


def _detail(table: pa.Table, column: str | None, position: int) -> str | None:
    if column is None:
        return None
    return shortened(table[column][position].as_py())


def _bounds(
    name: str,
    column: Column,
    low: float | None,
    high: float | None,
    detail_column: str | None = None,
) -> list[_Filter]:
    """Returns the filters of a pair of bounds; None: not bounded."""
    filters = []
    if low is not None:
        passes = _compared(column, pc.greater_equal, low)
        filters.append(_Filter(f"{name} below {low}", passes, detail_column))
    if high is not None:
        passes = _compared(column, pc.less_equal, high)
        filters.append(_Filter(f"{name} above {high}", passes, detail_column))
    return filters


def _chars(table: pa.Table) -> Any:
    return pc.utf8_length(table["completion"])


def _column(name: str) -> Column:
    return lambda table: table[name]


def _compared(column: Column, compare: Comparison, bound: float) -> Callable[[pa.Table], Mask]:
    return lambda table: _mask(compare(column(table), bound))


def _one_of(name: str, values: Sequence[str]) -> Callable[[pa.Table], Mask]:
    return lambda table: _mask(pc.is_in(table[name], pa.array(values)))


def _matching(pattern: Pattern) -> Callable[[pa.Table], Mask]:
    return lambda table: pattern.matches(table["completion"])


def _not_matching(pattern: Pattern) -> Callable[[pa.Table], Mask]:
    return lambda table: ~pattern.matches(table["completion"])


def _mask(column: Any) -> Mask:
    return cast(Mask, column.fill_null(False).to_numpy(zero_copy_only=False))
