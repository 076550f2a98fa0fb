"""Output columns: each has a name, an Arrow type, and builds its values from finished samples.

Does not depend on shards or files. Which columns an output has is decided by the task.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from actors.protocol.messages import Completion, RowRef, Score
from pipeline.errors import CommitError
from pipeline.output.list_arrays import (
    JoinedValues,
    Lengths,
    join_values,
    list_array,
    spread,
    sums_per_sample,
    value_counts,
    vector_array,
    with_leading_null,
)
from pipeline.output.publication import Encoding
from pipeline.records import OutputRow

Samples = Sequence[OutputRow]
SampleValues = Callable[[Completion], "array[Any] | None"]
Refs = Sequence[RowRef]
Scores = Sequence[Score | None]  # None: of a sample that failed
ScoreValues = Callable[[Score], "array[Any] | None"]


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column of the output.

    `build` returns the values of the samples, in their order, in the column's type. It raises
    CommitError when the arrays of a completion contradict each other.
    """

    name: str
    type: pa.DataType
    build: "Callable[[Samples], pa.Array[Any]]"
    encoding: Encoding = Encoding.DEFAULT


def text_column(name: str) -> OutputColumn:
    """Returns the column of the samples' text."""

    def build(samples: Samples) -> "pa.Array[Any]":
        return _arrow_array([sample.text for sample in samples], pa.string())

    return OutputColumn(name, pa.string(), build)


def value_column(
    name: str, value_type: pa.DataType, value: Callable[[Completion], object]
) -> OutputColumn:
    """Returns a column of one value per sample."""

    def build(samples: Samples) -> "pa.Array[Any]":
        return _arrow_array([value(sample.completion) for sample in samples], value_type)

    return OutputColumn(name, value_type, build)


def sum_column(name: str, sample_values: SampleValues) -> OutputColumn:
    """Returns a column of the sum, in float64, of a sample's float32 values."""

    def build(samples: Samples) -> "pa.Array[Any]":
        joined = join_values(_values_of(samples, sample_values), pa.float32())
        return cast(
            "pa.Array[Any]", pa.array(sums_per_sample(joined), pa.float64(), mask=joined.null)
        )

    return OutputColumn(name, pa.float64(), build)


def token_column(
    name: str,
    value_type: pa.DataType,
    sample_values: SampleValues,
    *,
    leading_null: bool = False,
) -> OutputColumn:
    """Returns a column of lists with one value per token.

    With `leading_null` each list begins with a null: nothing predicts the first token of a prompt.
    """

    def build(samples: Samples) -> "pa.Array[Any]":
        joined = join_values(_values_of(samples, sample_values), value_type)
        if not leading_null:
            return list_array(joined.lengths, pa.array(joined.values), joined.null)

        lengths, filled = with_leading_null(joined.lengths, joined.null)
        values = pa.array(spread(joined.values, filled), mask=~filled)
        return list_array(lengths, values, joined.null)

    return OutputColumn(name, pa.list_(value_type), build)


def vector_column(
    name: str, value_type: pa.DataType, size: int, sample_values: SampleValues
) -> OutputColumn:
    """Returns a column of vectors of `size` numbers, one per sample; float32 on the way.

    Numbers of vectors hardly repeat: a dictionary of them is larger than they are.
    """

    def build(samples: Samples) -> "pa.Array[Any]":
        values = _values_of(samples, sample_values)
        joined = join_values(values, pa.float32())
        wrong = np.flatnonzero(~joined.null & (joined.lengths != size))
        if wrong.size:
            index = int(wrong[0])
            raise CommitError(
                f"{samples[index].completion.ref} has a vector of {joined.lengths[index]} numbers, "
                f"expected {size}"
            )
        return vector_array(joined.values, joined.null, size, value_type)

    encoding = Encoding.PLAIN
    if value_type == pa.float32():
        encoding = Encoding.BYTE_STREAM_SPLIT
    return OutputColumn(name, pa.list_(value_type, size), build, encoding)


def top_column(
    name: str,
    value_type: pa.DataType,
    sample_values: SampleValues,
    tokens: SampleValues,
    *,
    leading_null: bool = False,
) -> OutputColumn:
    """Returns a column of lists with K values for each of a sample's `tokens`.

    `sample_values` are flattened: the K values of the first token, then those of the next one.
    """

    def build(samples: Samples) -> "pa.Array[Any]":
        joined = join_values(_values_of(samples, sample_values), value_type)
        token_counts = value_counts(_values_of(samples, tokens))
        token_counts[joined.null] = 0
        refs = [sample.completion.ref for sample in samples]
        values_per_token = _values_per_token(refs, joined.lengths, token_counts)
        if not leading_null:
            return _top_lists(joined, token_counts, values_per_token)

        values = pa.array(joined.values)
        lengths_per_token = np.repeat(values_per_token, token_counts)
        lengths, filled = with_leading_null(token_counts, joined.null)
        token_lists = list_array(spread(lengths_per_token, filled), values, ~filled)
        return list_array(lengths, token_lists, joined.null)

    return OutputColumn(name, pa.list_(pa.list_(value_type)), build)


def fixed_top_column(
    name: str, value_type: pa.DataType, top_k: int, sample_values: SampleValues
) -> OutputColumn:
    """Returns a column of lists of fixed-size lists, with the `top_k` values of each token.

    `sample_values` are flattened, int32 or float32 on the way. Log-probs in float16 are stored
    without a dictionary, ids with one: docs/teach.md has the sizes.
    """
    sent_type = value_type
    encoding = Encoding.DEFAULT
    if value_type == pa.float16():
        sent_type = pa.float32()
        encoding = Encoding.PLAIN
    column_type = pa.list_(pa.list_(value_type, top_k))

    def build(samples: Samples) -> "pa.Array[Any]":
        joined = join_values(_values_of(samples, sample_values), sent_type)
        partial = np.flatnonzero(joined.lengths % top_k)
        if partial.size:
            index = int(partial[0])
            raise CommitError(
                f"{samples[index].completion.ref} has {joined.lengths[index]} top values, expected "
                f"{top_k} for each token"
            )
        every_token = np.zeros(joined.values.size // top_k, np.bool_)
        vectors = vector_array(joined.values, every_token, top_k, value_type)
        return list_array(joined.lengths // top_k, vectors, joined.null)

    return OutputColumn(name, column_type, build, encoding)


def score_column(
    name: str, value_type: pa.DataType, value: Callable[[Score], object], *, choices: bool
) -> OutputColumn:
    """Returns a column of one value per sample, or of lists with one value per choice."""

    def build_values(_: Refs, scores: Scores) -> "pa.Array[Any]":
        values = [None if score is None else value(score) for score in scores]
        return _arrow_array(values, value_type)

    return _column_of_scores(name, value_type, build_values, choices=choices)


def scored_token_column(
    name: str, value_type: pa.DataType, score_values: ScoreValues, *, choices: bool
) -> OutputColumn:
    """Returns a column of lists with one value per scored token; per choice, such a list."""

    def build_lists(refs: Refs, scores: Scores) -> "pa.Array[Any]":
        values = _values_of_scores(refs, scores, score_values)
        joined = join_values(values, value_type)
        return list_array(joined.lengths, pa.array(joined.values), joined.null)

    return _column_of_scores(name, pa.list_(value_type), build_lists, choices=choices)


def scored_top_column(
    name: str, value_type: pa.DataType, score_values: ScoreValues, *, choices: bool
) -> OutputColumn:
    """Returns a column of lists with K values for each scored token; per choice, such lists.

    `score_values` are flattened: the K values of the first token, then those of the next one.
    """

    def build_lists(refs: Refs, scores: Scores) -> "pa.Array[Any]":
        values = _values_of_scores(refs, scores, score_values)
        joined = join_values(values, value_type)
        token_counts = value_counts(_values_of_scores(refs, scores, lambda score: score.token_ids))
        values_per_token = _values_per_token(refs, joined.lengths, token_counts)
        return _top_lists(joined, token_counts, values_per_token)

    list_type = pa.list_(pa.list_(value_type))
    return _column_of_scores(name, list_type, build_lists, choices=choices)


def _column_of_scores(
    name: str,
    value_type: pa.DataType,
    build_values: "Callable[[Refs, Scores], pa.Array[Any]]",
    *,
    choices: bool,
) -> OutputColumn:
    """Returns a column of one value per sample, or of lists with one value per choice.

    `build_values` returns one value per score; null where the score is None.
    """

    def build(samples: Samples) -> "pa.Array[Any]":
        refs: list[RowRef] = []
        scores: list[Score | None] = []
        for sample in samples:
            completion = sample.completion
            if len(completion.scores) > 1:
                raise CommitError(
                    f"{completion.ref} has {len(completion.scores)} scores, expected one: "
                    "the input has no choices"
                )
            refs.append(completion.ref)
            scores.append(completion.scores[0] if completion.scores else None)
        return build_values(refs, scores)

    def build_choices(samples: Samples) -> "pa.Array[Any]":
        refs: list[RowRef] = []
        scores: list[Score] = []
        counts: list[int] = []
        for sample in samples:
            completion = sample.completion
            refs += [completion.ref] * len(completion.scores)
            scores += completion.scores
            counts.append(len(completion.scores))
        lengths = np.array(counts, np.int32)
        return list_array(lengths, build_values(refs, scores), lengths == 0)

    if choices:
        return OutputColumn(name, pa.list_(value_type), build_choices)
    return OutputColumn(name, value_type, build)


def error_counts(completions: Iterable[Completion]) -> dict[str, int]:
    """Returns the number of failed samples by error code."""
    counts: dict[str, int] = {}
    for completion in completions:
        if completion.error_code is not None:
            counts[completion.error_code] = counts.get(completion.error_code, 0) + 1
    return counts


def _values_of(samples: Samples, sample_values: SampleValues) -> "list[array[Any] | None]":
    return [sample_values(sample.completion) for sample in samples]


def _values_of_scores(
    refs: Refs, scores: Scores, score_values: ScoreValues
) -> "list[array[Any] | None]":
    """Returns the values of each score's tokens; None where there is no score.

    Raises:
        CommitError: a score has no values of its tokens.
    """
    values: list[array[Any] | None] = []
    for ref, score in zip(refs, scores, strict=True):
        if score is None:
            values.append(None)
            continue
        score_array = score_values(score)
        if score_array is None:
            raise CommitError(f"{ref} has a score without values of its tokens, expected them")
        values.append(score_array)
    return values


def _top_lists(
    joined: JoinedValues, token_counts: Lengths, values_per_token: Lengths
) -> "pa.Array[Any]":
    """Returns lists of one list of K values per token."""
    lengths_per_token = np.repeat(values_per_token, token_counts)
    not_null = np.zeros(lengths_per_token.size, np.bool_)
    token_lists = list_array(lengths_per_token, pa.array(joined.values), not_null)
    return list_array(token_counts, token_lists, joined.null)


def _values_per_token(refs: Refs, lengths: Lengths, token_counts: Lengths) -> Lengths:
    """Returns K of each list of tokens."""
    values_per_token: Lengths = lengths // np.maximum(token_counts, 1)
    mismatches = np.flatnonzero(values_per_token * token_counts != lengths)
    if mismatches.size:
        index = int(mismatches[0])
        raise CommitError(
            f"{refs[index]} has {lengths[index]} top values for "
            f"{token_counts[index]} tokens, expected K for each"
        )
    return values_per_token


def _arrow_array(values: Sequence[object], value_type: pa.DataType) -> "pa.Array[Any]":
    return cast("pa.Array[Any]", pa.array(cast(Any, values), value_type))
