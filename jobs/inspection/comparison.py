"""Compares the rows of two runs: which differ, from which token on, and by how much.

Rows are matched by id and sample. Both runs are read once, in order; only rows that the other run
has not reached yet are kept, so that runs over the same input take constant memory.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from jobs.inspection.distribution import Distribution
from jobs.inspection.rows import Row, part_rows, run_schema
from pipeline.output.run_folder import RunFolder

COLUMNS = (
    "id",
    "sample_index",
    "status",
    "text",
    "token_ids",
    "token_logprobs",
    "loglikelihood",
    "is_greedy",
    "scored_token_ids",
    "scored_logprobs",
)
SHARD = "shard of the row"  # no column has this name
LISTED_ROWS = 20  # of each kind
MAX_TOKENS = 200  # of a listed completion
Key = tuple[Any, int]
Tokens = Sequence[tuple[int, float | None]]  # ids with their log-probs


@dataclass(frozen=True, slots=True)
class Divergence:
    """A row whose completions differ."""

    id: Any
    sample_index: int
    position: int | None  # first token that differs, from 0; None: no token ids
    text_a: str | None
    text_b: str | None
    shard: int = 0  # of the first run
    tokens_a: "Tokens" = ()
    tokens_b: "Tokens" = ()


@dataclass(frozen=True, slots=True)
class ChoiceChange:
    """A row whose most likely choice is another one."""

    id: Any
    shard: int  # of the first run
    choice_a: int
    choice_b: int
    scores_a: tuple[float, ...]
    scores_b: tuple[float, ...]


@dataclass(slots=True)
class Comparison:
    """What two runs have in common, and where they differ.

    Attributes:
        rows_a: rows of the first run.
        rows_b: rows of the second run.
        common: rows of both.
        only_a: some ids that only the first run has.
        only_b: some ids that only the second run has.
        status_changes: number of rows by (status in the first run, status in the second).
        diverging: rows whose completions differ.
        divergences: the first of them.
        positions: number of diverging rows by the first token that differs.
        logprob_differences: of each token up to the first that differs, absolute.
        likelihood_differences: of each scored text, absolute.
        changed_choices: rows whose most likely choice is another one.
        choice_changes: the first of them.
        changed_greedy: scored texts of which `is_greedy` changed.
    """

    rows_a: int = 0
    rows_b: int = 0
    common: int = 0
    only_a: list[Any] = field(default_factory=list)
    only_b: list[Any] = field(default_factory=list)
    status_changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    diverging: int = 0
    divergences: list[Divergence] = field(default_factory=list)
    positions: Counter[int] = field(default_factory=Counter)
    logprob_differences: Distribution = field(default_factory=Distribution)
    likelihood_differences: Distribution = field(default_factory=Distribution)
    changed_choices: int = 0
    choice_changes: list[ChoiceChange] = field(default_factory=list)
    changed_greedy: int = 0

    @property
    def identical(self) -> bool:
        """Whether both runs have the same rows with the same values."""
        values_differ = self.logprob_differences.not_zero or self.likelihood_differences.not_zero
        return (
            self.rows_a == self.rows_b == self.common
            and not self.status_changes
            and not self.diverging
            and not self.changed_greedy
            and not values_differ
        )


@dataclass(frozen=True, slots=True)
class RunPair:
    """Two runs with their comparison.

    `name` is that of both run folders in their evaluations; empty for runs that are compared alone.
    """

    name: str
    folder_a: RunFolder
    folder_b: RunFolder
    comparison: Comparison


def compare_runs(folder_a: RunFolder, folder_b: RunFolder) -> Comparison:
    """Compares all committed rows of two runs.

    Raises:
        DatasetError: a run has no part, or a part cannot be read.
    """
    comparison = Comparison()
    for row_a, row_b in _matched(folder_a, folder_b, comparison):
        comparison.common += 1
        _compare_rows(row_a, row_b, comparison)
    return comparison


def _matched(
    folder_a: RunFolder, folder_b: RunFolder, comparison: Comparison
) -> Iterator[tuple[Row, Row]]:
    """Yields the rows of both runs by key; counts the others."""
    waiting_a: dict[Key, Row] = {}
    waiting_b: dict[Key, Row] = {}
    for row_a, row_b in zip_longest(_rows(folder_a), _rows(folder_b)):
        if row_a is not None:
            comparison.rows_a += 1
            waiting_a[_key(row_a)] = row_a
        if row_b is not None:
            comparison.rows_b += 1
            waiting_b[_key(row_b)] = row_b
        for row in (row_a, row_b):
            if row is None:
                continue
            key = _key(row)
            if key in waiting_a and key in waiting_b:
                yield waiting_a.pop(key), waiting_b.pop(key)
    comparison.only_a = [key[0] for key in list(waiting_a)[:LISTED_ROWS]]
    comparison.only_b = [key[0] for key in list(waiting_b)[:LISTED_ROWS]]


def _rows(folder: RunFolder) -> Iterator[Row]:
    names = run_schema(folder).names
    columns = [name for name in COLUMNS if name in names]
    for number in sorted(folder.committed()):
        for row in part_rows(folder, number, columns):
            yield {**row, SHARD: number}


def _key(row: Row) -> Key:
    return row["id"], row.get("sample_index") or 0


def _compare_rows(row_a: Row, row_b: Row, comparison: Comparison) -> None:
    if row_a["status"] != row_b["status"]:
        comparison.status_changes[row_a["status"], row_b["status"]] += 1
    if row_a["status"] != "ok" or row_b["status"] != "ok":
        return
    _compare_completions(row_a, row_b, comparison)
    _compare_scores(row_a, row_b, comparison)


def _compare_completions(row_a: Row, row_b: Row, comparison: Comparison) -> None:
    ids_a = row_a.get("token_ids")
    ids_b = row_b.get("token_ids")
    position = None
    if ids_a is not None and ids_b is not None:
        position = first_difference(ids_a, ids_b)
        _compare_logprobs(
            row_a.get("token_logprobs"), row_b.get("token_logprobs"), position, comparison
        )
    differs = position is not None or row_a.get("text") != row_b.get("text")
    if differs:
        _add_divergence(row_a, row_b, position, comparison)


def _add_divergence(row_a: Row, row_b: Row, position: int | None, comparison: Comparison) -> None:
    comparison.diverging += 1
    if position is not None:
        comparison.positions[position] += 1
    if len(comparison.divergences) < LISTED_ROWS:
        row_id, sample = _key(row_a)
        divergence = Divergence(
            id=row_id,
            sample_index=sample,
            position=position,
            text_a=row_a.get("text"),
            text_b=row_b.get("text"),
            shard=row_a[SHARD],
            tokens_a=_tokens(row_a),
            tokens_b=_tokens(row_b),
        )
        comparison.divergences.append(divergence)


def _tokens(row: Row) -> Tokens:
    """Returns the first tokens of a completion with their log-probs."""
    ids = list(row.get("token_ids") or ())[:MAX_TOKENS]
    logprobs: list[float | None] = list(row.get("token_logprobs") or ())[:MAX_TOKENS]
    if len(logprobs) != len(ids):
        logprobs = [None] * len(ids)
    return list(zip(ids, logprobs, strict=True))


def first_difference(ids_a: Sequence[int], ids_b: Sequence[int]) -> int | None:
    """Returns the first position at which two lists differ; None if they are equal."""
    for position, (token_a, token_b) in enumerate(zip(ids_a, ids_b, strict=False)):
        if token_a != token_b:
            return position
    if len(ids_a) != len(ids_b):
        return min(len(ids_a), len(ids_b))
    return None


def _compare_logprobs(
    logprobs_a: Sequence[float] | None,
    logprobs_b: Sequence[float] | None,
    position: int | None,
    comparison: Comparison,
) -> None:
    """Adds the differences of tokens that both texts have: later ones have other contexts."""
    if logprobs_a is None or logprobs_b is None:
        return
    pairs = zip(logprobs_a[:position], logprobs_b[:position], strict=False)
    for logprob_a, logprob_b in pairs:
        comparison.logprob_differences.add(_distance(logprob_a, logprob_b))


def _compare_scores(row_a: Row, row_b: Row, comparison: Comparison) -> None:
    scores_a = _as_list(row_a.get("loglikelihood"))
    scores_b = _as_list(row_b.get("loglikelihood"))
    if not scores_a or len(scores_a) != len(scores_b):
        return
    for score_a, score_b in zip(scores_a, scores_b, strict=True):
        comparison.likelihood_differences.add(_distance(score_a, score_b))
    choice_a = scores_a.index(max(scores_a))
    choice_b = scores_b.index(max(scores_b))
    if choice_a != choice_b:
        comparison.changed_choices += 1
        if len(comparison.choice_changes) < LISTED_ROWS:
            change = ChoiceChange(
                id=row_a["id"],
                shard=row_a[SHARD],
                choice_a=choice_a,
                choice_b=choice_b,
                scores_a=tuple(scores_a),
                scores_b=tuple(scores_b),
            )
            comparison.choice_changes.append(change)
    greedy_a = _as_list(row_a.get("is_greedy"))
    greedy_b = _as_list(row_b.get("is_greedy"))
    for was_greedy, is_greedy in zip(greedy_a, greedy_b, strict=False):
        comparison.changed_greedy += was_greedy != is_greedy
    _compare_scored_tokens(row_a, row_b, comparison)


def _compare_scored_tokens(row_a: Row, row_b: Row, comparison: Comparison) -> None:
    """Compares the tokens of scored texts; those of the first text that differs are a divergence.

    Runs without the columns of --token-logprobs have nothing to compare.
    """
    ids_a = _per_choice(row_a.get("scored_token_ids"))
    ids_b = _per_choice(row_b.get("scored_token_ids"))
    logprobs_a = _per_choice(row_a.get("scored_logprobs"))
    logprobs_b = _per_choice(row_b.get("scored_logprobs"))
    divergence = None
    for choice in range(min(len(ids_a), len(ids_b))):
        position = first_difference(ids_a[choice], ids_b[choice])
        _compare_logprobs(logprobs_a[choice], logprobs_b[choice], position, comparison)
        if divergence is None:
            divergence = position
    if divergence is not None:
        _add_divergence(row_a, row_b, divergence, comparison)


def _per_choice(value: Any) -> list[Sequence[Any]]:
    """Returns the lists of all choices; a list of numbers is that of the only one."""
    if value is None:
        return []
    has_choices = any(isinstance(item, list | array) for item in value)
    if has_choices:
        return list(value)
    return [value]


def _distance(score_a: float, score_b: float) -> float:
    if score_a == score_b:  # also two infinities
        return 0.0
    return abs(score_a - score_b)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list | array):
        return list(value)
    return [value]
