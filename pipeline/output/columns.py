"""Finished samples -> one Arrow table of the output schema. It knows no shards and no files.

Ids and log-probs arrive as one `array.array` per sample; their bytes are joined once per column, so
that no value ever becomes a Python object.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.protocol.messages import Completion, Score
from pipeline.errors import CommitError
from pipeline.records import OutputRow

Offsets = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Arrays = Sequence["array[Any] | None"]


def output_table(rows: Sequence[OutputRow], passthrough: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the table of `schema` for `rows`; row i continues row i of `passthrough`.

    Raises:
        CommitError: the arrays of a completion contradict each other.
    """
    completions = [row.completion for row in rows]
    columns: list[Any] = []
    for field in schema:
        if field.name in passthrough.column_names:
            columns.append(passthrough[field.name])
        elif field.name == "text":
            columns.append(pa.array([row.text for row in rows], pa.string()))
        else:
            columns.append(_COLUMNS[field.name](completions, field.type))
    return pa.table(columns, schema=schema)


def _scalar(value: Callable[[Completion], object]) -> "Column":
    return lambda completions, kind: pa.array(
        [value(completion) for completion in completions], kind
    )


def _score(value: Callable[[Score], object]) -> "Column":
    def column(completions: Sequence[Completion], kind: Any) -> "pa.Array[Any]":
        scores = [completion.scores for completion in completions]
        if pa.types.is_list(kind):
            return cast(
                "pa.Array[Any]",
                pa.array(
                    [[value(score) for score in row] if row else None for row in scores], kind
                ),
            )
        wrong = next((completion for completion in completions if len(completion.scores) > 1), None)
        if wrong is not None:
            raise CommitError(
                f"{wrong.ref} came back with {len(wrong.scores)} scores, expected one: the input "
                "has no choices"
            )
        return cast(
            "pa.Array[Any]", pa.array([value(row[0]) if row else None for row in scores], kind)
        )

    return column


def _per_token(
    arrays: Callable[[Completion], "array[Any] | None"], *, first_null: bool = False
) -> "Column":
    """One value per token.

    With `first_null` a null stands before the first (nothing predicts a prompt's first token).
    """

    def column(completions: Sequence[Completion], kind: Any) -> "pa.Array[Any]":
        rows = [arrays(completion) for completion in completions]
        values, lengths, null = _joined(rows, kind.value_type)
        if not first_null:
            return _lists(lengths, pa.array(values), null)
        starts, filled = _room_for_first(lengths, null)
        spaced = np.zeros(filled.size, values.dtype)
        spaced[filled] = values
        return _lists(starts, pa.array(spaced, mask=~filled), null)

    return column


def _top(
    arrays: Callable[[Completion], "array[Any] | None"],
    tokens: Callable[[Completion], "array[Any] | None"],
    *,
    first_null: bool = False,
) -> "Column":
    """K values per token, flattened: lists of lists."""

    def column(completions: Sequence[Completion], kind: Any) -> "pa.Array[Any]":
        rows = [arrays(completion) for completion in completions]
        values, lengths, null = _joined(rows, kind.value_type.value_type)
        counts = np.array([len(tokens(completion) or ()) for completion in completions], np.int32)
        counts = np.where(null, 0, counts)
        width = lengths // np.maximum(counts, 1)
        wrong = np.flatnonzero(width * counts != lengths)
        if wrong.size:
            ref = completions[int(wrong[0])].ref
            raise CommitError(
                f"{ref} came back with {lengths[wrong[0]]} top values for {counts[wrong[0]]} "
                "tokens, expected K for each"
            )
        inner = np.repeat(width, counts)
        if not first_null:
            return _lists(
                counts, _lists(inner, pa.array(values), np.zeros(inner.size, np.bool_)), null
            )
        starts, filled = _room_for_first(counts, null)
        spaced = np.zeros(filled.size, np.int32)
        spaced[filled] = inner
        return _lists(starts, _lists(spaced, pa.array(values), ~filled), null)

    return column


def _joined(rows: Arrays, kind: Any) -> tuple[npt.NDArray[Any], Offsets, Mask]:
    """Returns all values in one array, the number of values per row, and which rows are null."""
    null = np.array([row is None for row in rows], np.bool_)
    lengths = np.array([0 if row is None else len(row) for row in rows], np.int32)
    present = [row for row in rows if row is not None]
    values = np.frombuffer(b"".join(present), kind.to_pandas_dtype())
    return values, lengths, null


def _room_for_first(lengths: Offsets, null: Mask) -> tuple[Offsets, Mask]:
    """Returns the lengths with one more value for every row that is not null, and which positions are not that value."""
    longer = lengths + ~null
    filled = np.ones(int(longer.sum(dtype=np.int64)), np.bool_)
    filled[(np.cumsum(longer) - longer)[~null]] = False
    return longer.astype(np.int32), filled


def _lists(lengths: Offsets, values: "pa.Array[Any]", null: Mask) -> "pa.Array[Any]":
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise CommitError(
            f"a shard has {offsets[-1]} values in one column, more than a list column holds; use a "
            "smaller --shard-rows"
        )
    build: Any = pa.ListArray.from_arrays  # its stubs know no NumPy arrays
    return cast(
        "pa.Array[Any]", build(pa.array(offsets.astype(np.int32)), values, mask=pa.array(null))
    )


def _cumulative(completions: Sequence[Completion], kind: Any) -> "pa.Array[Any]":
    """Sums in float64, each row by itself, so that a row's sum does not depend on its neighbours."""
    values, lengths, null = _joined(
        [completion.token_logprobs for completion in completions], pa.float32()
    )
    sums = np.zeros(len(lengths))
    some = lengths > 0
    if some.any():
        starts = (np.cumsum(lengths, dtype=np.int64) - lengths)[some]
        sums[some] = np.add.reduceat(values, starts, dtype=np.float64)
    return cast("pa.Array[Any]", pa.array(sums, kind, mask=null))


def _failed(completion: Completion) -> bool:
    return completion.error_code is not None


Column = Callable[[Sequence[Completion], Any], "pa.Array[Any]"]

_COLUMNS: dict[str, Column] = {
    "sample_index": _scalar(lambda completion: completion.ref.sample),
    "status": _scalar(lambda completion: "error" if _failed(completion) else "ok"),
    "error_code": _scalar(lambda completion: completion.error_code),
    "error_message": _scalar(lambda completion: completion.error_message),
    "attempts": _scalar(lambda completion: completion.attempts),
    "token_ids": _per_token(
        lambda completion: None if _failed(completion) else completion.token_ids
    ),
    "finish_reason": _scalar(lambda completion: completion.finish_reason),
    "stop_reason": _scalar(lambda completion: completion.stop_reason),
    "prompt_tokens": _scalar(lambda completion: completion.prompt_tokens),
    "completion_tokens": _scalar(
        lambda completion: None if _failed(completion) else len(completion.token_ids)
    ),
    "cached_tokens": _scalar(lambda completion: completion.cached_tokens),
    "token_logprobs": _per_token(lambda completion: completion.token_logprobs),
    "cumulative_logprob": _cumulative,
    "top_token_ids": _top(
        lambda completion: completion.top_token_ids, lambda completion: completion.token_ids
    ),
    "top_logprobs": _top(
        lambda completion: completion.top_logprobs, lambda completion: completion.token_ids
    ),
    "prompt_logprobs": _per_token(lambda completion: completion.prompt_logprobs, first_null=True),
    "prompt_top_token_ids": _top(
        lambda completion: completion.prompt_top_token_ids,
        lambda completion: completion.prompt_logprobs,
        first_null=True,
    ),
    "prompt_top_logprobs": _top(
        lambda completion: completion.prompt_top_logprobs,
        lambda completion: completion.prompt_logprobs,
        first_null=True,
    ),
    "loglikelihood": _score(lambda score: score.loglikelihood),
    "is_greedy": _score(lambda score: score.is_greedy),
    "scored_tokens": _score(lambda score: score.tokens),
    "seed": _scalar(lambda completion: completion.seed),
}


def error_counts(completions: Iterable[Completion]) -> dict[str, int]:
    """Returns how many samples failed, by error code."""
    counts: dict[str, int] = {}
    for completion in completions:
        if completion.error_code is not None:
            counts[completion.error_code] = counts.get(completion.error_code, 0) + 1
    return counts
