"""Output columns: each has a name, an Arrow type, and builds its values from finished samples.

Does not depend on shards or files. Which columns an output has is decided by the task.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from actors.protocol.messages import Completion, Score
from pipeline.errors import CommitError
from pipeline.output.list_arrays import (
    Lengths,
    join_values,
    list_array,
    spread,
    sums_per_sample,
    value_counts,
    with_leading_null,
)
from pipeline.records import OutputRow

Samples = Sequence[OutputRow]
SampleValues = Callable[[Completion], "array[Any] | None"]


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column of the output.

    `build` returns the values of the samples, in their order, in the column's type. It raises
    CommitError when the arrays of a completion contradict each other.
    """

    name: str
    type: pa.DataType
    build: "Callable[[Samples], pa.Array[Any]]"


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
        values_per_token = _values_per_token(samples, joined.lengths, token_counts)
        values = pa.array(joined.values)

        lengths_per_token = np.repeat(values_per_token, token_counts)
        if not leading_null:
            not_null = np.zeros(lengths_per_token.size, np.bool_)
            return list_array(
                token_counts, list_array(lengths_per_token, values, not_null), joined.null
            )

        lengths, filled = with_leading_null(token_counts, joined.null)
        token_lists = list_array(spread(lengths_per_token, filled), values, ~filled)
        return list_array(lengths, token_lists, joined.null)

    return OutputColumn(name, pa.list_(pa.list_(value_type)), build)


def score_column(
    name: str, value_type: pa.DataType, value: Callable[[Score], object], *, choices: bool
) -> OutputColumn:
    """Returns a column of one value per sample, or of lists with one value per choice."""
    if choices:
        return _choices_column(name, value_type, value)

    def build(samples: Samples) -> "pa.Array[Any]":
        values: list[object] = []
        for sample in samples:
            scores = sample.completion.scores
            if len(scores) > 1:
                raise CommitError(
                    f"{sample.completion.ref} has {len(scores)} scores, expected one: "
                    "the input has no choices"
                )
            values.append(value(scores[0]) if scores else None)
        return _arrow_array(values, value_type)

    return OutputColumn(name, value_type, build)


def _choices_column(
    name: str, value_type: pa.DataType, value: Callable[[Score], object]
) -> OutputColumn:
    def build(samples: Samples) -> "pa.Array[Any]":
        values: list[list[object] | None] = []
        for sample in samples:
            scores = list(map(value, sample.completion.scores))
            values.append(scores or None)
        return _arrow_array(values, pa.list_(value_type))

    return OutputColumn(name, pa.list_(value_type), build)


def error_counts(completions: Iterable[Completion]) -> dict[str, int]:
    """Returns the number of failed samples by error code."""
    counts: dict[str, int] = {}
    for completion in completions:
        if completion.error_code is not None:
            counts[completion.error_code] = counts.get(completion.error_code, 0) + 1
    return counts


def _values_of(samples: Samples, sample_values: SampleValues) -> "list[array[Any] | None]":
    return [sample_values(sample.completion) for sample in samples]


def _values_per_token(samples: Samples, lengths: Lengths, token_counts: Lengths) -> Lengths:
    """Returns K of each sample."""
    values_per_token: Lengths = lengths // np.maximum(token_counts, 1)
    mismatches = np.flatnonzero(values_per_token * token_counts != lengths)
    if mismatches.size:
        index = int(mismatches[0])
        raise CommitError(
            f"{samples[index].completion.ref} has {lengths[index]} top values for "
            f"{token_counts[index]} tokens, expected K for each"
        )
    return values_per_token


def _arrow_array(values: Sequence[object], value_type: pa.DataType) -> "pa.Array[Any]":
    return cast("pa.Array[Any]", pa.array(cast(Any, values), value_type))
