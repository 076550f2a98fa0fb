"""Length, finish reason, mean log-prob and patterns → which samples pass.

It knows no fields and no neighbours of a sample.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.synthesis.selection.patterns import Pattern
from pipeline.synthesis.selection.rejections import Rejection, shortened
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import ERROR_COLUMNS, Judged

Mask = npt.NDArray[np.bool_]
Column = Callable[[pa.Table], Any]


@dataclass(frozen=True, slots=True)
class _Check:
    """One filter: which samples pass, the reason for the others, and the column that tells why."""

    reason: str
    passes: Callable[[pa.Table], Mask]
    shown: str | None = None


def generation(table: pa.Table) -> Judged:
    """Lets pass what was completed; a row that failed keeps its error code as the reason."""
    failed = zip(*(table[name].to_pylist() for name in ERROR_COLUMNS), strict=True)
    verdicts = [
        None
        if status == "ok"
        else Rejection("generation", str(code), None if message is None else shortened(message))
        for status, code, message in failed
    ]
    return Judged(table, verdicts)


class Filters:
    """All filters of a data set, ready to judge."""

    def __init__(self, rules: SelectionRules) -> None:
        """Checks the patterns.

        Raises:
            ConfigError: one is none.
        """
        self._checks = [*_bounds(rules)]
        if rules.finish_reasons:
            self._checks.append(
                _Check(
                    "finish_reason", _one_of("finish_reason", rules.finish_reasons), "finish_reason"
                )
            )
        for source in rules.must_match:
            self._checks.append(
                _Check(
                    f"no match: {source}", _matching(Pattern(source, "--must-match"), wanted=True)
                )
            )
        for source in rules.must_not_match:
            self._checks.append(
                _Check(
                    f"match: {source}", _matching(Pattern(source, "--must-not-match"), wanted=False)
                )
            )

    def __call__(self, table: pa.Table) -> Judged:
        """Judges every sample; the first filter that it fails is the reason."""
        verdicts: list[Rejection | None] = [None] * table.num_rows
        for check in self._checks:
            for place in np.flatnonzero(~check.passes(table)).tolist():
                if verdicts[place] is None:
                    detail = (
                        None
                        if check.shown is None
                        else shortened(table[check.shown][place].as_py())
                    )
                    verdicts[place] = Rejection("filter", shortened(check.reason), detail)
        return Judged(table, verdicts)


def _bounds(rules: SelectionRules) -> Iterator[_Check]:
    columns: tuple[tuple[str, Column], ...] = (
        ("chars", lambda table: pc.utf8_length(table["completion"])),
        ("completion_tokens", lambda table: table["completion_tokens"]),
        ("mean_logprob", lambda table: table["mean_logprob"]),
    )
    for name, column in columns:
        shown = None if name == "chars" else name
        low, high = getattr(rules, f"min_{name}"), getattr(rules, f"max_{name}")
        if low is not None:
            yield _Check(f"{name} below {low}", _compared(column, pc.greater_equal, low), shown)
        if high is not None:
            yield _Check(f"{name} above {high}", _compared(column, pc.less_equal, high), shown)


def _compared(
    column: Column, compare: Callable[[Any, Any], Any], bound: float
) -> Callable[[pa.Table], Mask]:
    return lambda table: _mask(compare(column(table), bound))


def _one_of(name: str, values: Sequence[str]) -> Callable[[pa.Table], Mask]:
    return lambda table: _mask(pc.is_in(table[name], pa.array(values)))


def _matching(pattern: Pattern, *, wanted: bool) -> Callable[[pa.Table], Mask]:
    return lambda table: pattern.matches(table["completion"]) == wanted


def _mask(column: Any) -> Mask:
    return cast(Mask, column.fill_null(False).to_numpy(zero_copy_only=False))
