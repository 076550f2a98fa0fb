"""The stage that joins windows: completions of the windows of a text → one completion of its row.

Windows of a row are requests of their own: they arrive in any order, from any replica. The stage
holds those of rows that are not complete yet.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from actors.protocol.messages import Completion, RowRef, Score
from pipeline.records import Passing


def join_windows(completions: Iterable[Completion | Passing]) -> Iterator[Completion | Passing]:
    """Yields one completion per sample of a row; all other items pass through.

    A completion of a request that is no window passes through, too. A row fails with the error of
    its first window that failed.
    """
    open_rows: dict[RowRef, list[Completion]] = {}
    for completion in completions:
        if not isinstance(completion, Completion) or completion.ref.windows == 1:
            yield completion
            continue

        row_ref = replace(completion.ref, window=0)
        windows = open_rows.setdefault(row_ref, [])
        windows.append(completion)
        if len(windows) == row_ref.windows:
            del open_rows[row_ref]
            yield joined(windows)


def joined(windows: Sequence[Completion]) -> Completion:
    """Returns the completion of a row from those of all its windows, in any order."""
    ordered = sorted(windows, key=lambda completion: completion.ref.window)
    first = ordered[0]
    for completion in ordered:
        if completion.error_code is not None:
            return replace(completion, ref=first.ref)

    prompt_tokens = 0
    cached_tokens = 0
    for completion in ordered:
        prompt_tokens += completion.prompt_tokens or 0
        cached_tokens += completion.cached_tokens or 0
    return replace(
        first,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        scores=(_joined_score([completion.scores[0] for completion in ordered]),),
    )


def _joined_score(scores: Sequence[Score]) -> Score:
    """Returns the score of a text from those of its windows, in the order of the text."""
    return Score(
        loglikelihood=math.fsum(score.loglikelihood for score in scores),
        is_greedy=all(score.is_greedy for score in scores),
        tokens=sum(score.tokens for score in scores),
        boundary_chars=scores[0].boundary_chars,
        token_ids=_joined_values(scores, lambda score: score.token_ids),
        token_logprobs=_joined_values(scores, lambda score: score.token_logprobs),
        top_token_ids=_joined_values(scores, lambda score: score.top_token_ids),
        top_logprobs=_joined_values(scores, lambda score: score.top_logprobs),
        tail_logprobs=_joined_values(scores, lambda score: score.tail_logprobs),
    )


def _joined_values(
    scores: Sequence[Score], values_of: "Callable[[Score], array[Any] | None]"
) -> "array[Any] | None":
    """Returns the values of all windows one after the other; None where a window has none."""
    values: array[Any] | None = None
    for score in scores:
        window_values = values_of(score)
        if window_values is None:
            return None
        if values is None:
            values = window_values[:]
        else:
            values += window_values
    return values
