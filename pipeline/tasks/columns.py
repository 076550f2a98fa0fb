"""Output columns that tasks choose from."""

import math
from array import array
from typing import Any

import pyarrow as pa

from actors.protocol.messages import Completion
from pipeline.output.columns import (
    OutputColumn,
    ScoreValues,
    fixed_top_column,
    score_column,
    scored_token_column,
    scored_top_column,
    sum_column,
    text_column,
    token_column,
    top_column,
    value_column,
    vector_column,
)
from pipeline.tasks.task import EmbeddingOptions

_PROMPT_TOKENS = value_column(
    "prompt_tokens", pa.int32(), lambda completion: completion.prompt_tokens
)
_CACHED_TOKENS = value_column(
    "cached_tokens", pa.int32(), lambda completion: completion.cached_tokens
)
PROMPT_USAGE = (_PROMPT_TOKENS, _CACHED_TOKENS)

COMPLETION = (
    text_column("text"),
    token_column(
        "token_ids",
        pa.int32(),
        lambda completion: None if _failed(completion) else completion.token_ids,
    ),
    value_column("finish_reason", pa.string(), lambda completion: completion.finish_reason),
    value_column("stop_reason", pa.string(), lambda completion: completion.stop_reason),
    _PROMPT_TOKENS,
    value_column(
        "completion_tokens",
        pa.int32(),
        lambda completion: None if _failed(completion) else len(completion.token_ids),
    ),
    _CACHED_TOKENS,
)


def _bits_per_byte(completion: Completion) -> float | None:
    """Returns the bits of a scored text per byte, as lm-evaluation-harness defines them.

    None for a row that failed, and where the text is not known or empty.
    """
    if not completion.scores or not completion.prompt_bytes:
        return None
    bits = -completion.scores[0].loglikelihood / math.log(2)
    return bits / completion.prompt_bytes


TEXT_BYTES = (
    value_column("text_bytes", pa.int64(), lambda completion: completion.prompt_bytes),
    value_column("bits_per_byte", pa.float64(), _bits_per_byte),
)
WINDOWS = (
    value_column(
        "windows",
        pa.int32(),
        lambda completion: None if _failed(completion) else completion.ref.windows,
    ),
)
SEED = value_column("seed", pa.int64(), lambda completion: completion.seed)

_GENERATED_LOGPROBS = (
    token_column("token_logprobs", pa.float32(), lambda completion: completion.token_logprobs),
    sum_column("cumulative_logprob", lambda completion: completion.token_logprobs),
)
_GENERATED_TOP_LOGPROBS = (
    top_column(
        "top_token_ids",
        pa.int32(),
        lambda completion: completion.top_token_ids,
        lambda completion: completion.token_ids,
    ),
    top_column(
        "top_logprobs",
        pa.float32(),
        lambda completion: completion.top_logprobs,
        lambda completion: completion.token_ids,
    ),
)
_PROMPT_LOGPROBS = (
    token_column(
        "prompt_logprobs",
        pa.float32(),
        lambda completion: completion.prompt_logprobs,
        leading_null=True,
    ),
)
_PROMPT_TOP_LOGPROBS = (
    top_column(
        "prompt_top_token_ids",
        pa.int32(),
        lambda completion: completion.prompt_top_token_ids,
        lambda completion: completion.prompt_logprobs,
        leading_null=True,
    ),
    top_column(
        "prompt_top_logprobs",
        pa.float32(),
        lambda completion: completion.prompt_top_logprobs,
        lambda completion: completion.prompt_logprobs,
        leading_null=True,
    ),
)


def generated_logprobs(top: int | None) -> tuple[OutputColumn, ...]:
    """Returns the columns of --logprobs `top`: 0 is the chosen tokens only, None is no columns."""
    if top is None:
        return ()
    if top == 0:
        return _GENERATED_LOGPROBS
    return _GENERATED_LOGPROBS + _GENERATED_TOP_LOGPROBS


def prompt_logprobs(top: int | None) -> tuple[OutputColumn, ...]:
    """Returns the columns of --prompt-logprobs `top`, as `generated_logprobs`."""
    if top is None:
        return ()
    if top == 0:
        return _PROMPT_LOGPROBS
    return _PROMPT_LOGPROBS + _PROMPT_TOP_LOGPROBS


def scores(*, choices: bool) -> tuple[OutputColumn, ...]:
    """Returns the columns of scores; lists with one entry per choice if rows have `choices`."""
    return (
        score_column(
            "loglikelihood", pa.float64(), lambda score: score.loglikelihood, choices=choices
        ),
        score_column("is_greedy", pa.bool_(), lambda score: score.is_greedy, choices=choices),
        score_column("scored_tokens", pa.int32(), lambda score: score.tokens, choices=choices),
    )


def scored_logprobs(top: int | None, *, choices: bool) -> tuple[OutputColumn, ...]:
    """Returns the columns of the scored tokens: ids, log-probs and the `top` most likely ones.

    As `generated_logprobs`: of 0 there are no most likely ones, of None no columns.
    """
    if top is None:
        return ()
    scored = (
        scored_token_column(
            "scored_token_ids", pa.int32(), lambda score: score.token_ids, choices=choices
        ),
        scored_token_column(
            "scored_logprobs", pa.float32(), lambda score: score.token_logprobs, choices=choices
        ),
    )
    if top == 0:
        return scored
    most_likely = (
        scored_top_column(
            "scored_top_token_ids", pa.int32(), lambda score: score.top_token_ids, choices=choices
        ),
        scored_top_column(
            "scored_top_logprobs", pa.float32(), lambda score: score.top_logprobs, choices=choices
        ),
    )
    return scored + most_likely


def _text_values(completion: Completion, score_values: ScoreValues) -> "array[Any] | None":
    """Returns the values of a text's scored tokens; None for a text that failed."""
    if not completion.scores:
        return None
    return score_values(completion.scores[0])


def teacher_targets(top_k: int) -> tuple[OutputColumn, ...]:
    """Returns the tokens of a text, and the distribution of each of them but the first.

    Entry i of the targets is for token i + 1.
    """
    return (
        token_column("input_ids", pa.int32(), _text_ids),
        fixed_top_column(
            "target_token_ids",
            pa.int32(),
            top_k,
            lambda completion: _text_values(completion, lambda score: score.top_token_ids),
        ),
        fixed_top_column(
            "target_logprobs",
            pa.float16(),
            top_k,
            lambda completion: _text_values(completion, lambda score: score.top_logprobs),
        ),
        token_column(
            "target_tail_logprobs",
            pa.float32(),
            lambda completion: _text_values(completion, lambda score: score.tail_logprobs),
        ),
    )


def _text_ids(completion: Completion) -> "array[int] | None":
    """Returns all token ids of a text that is scored given its first token."""
    if completion.context_ids is None or not completion.scores:
        return None
    scored = completion.scores[0].token_ids
    if scored is None:
        return None
    return completion.context_ids + scored


def embedding(options: EmbeddingOptions) -> OutputColumn:
    """Returns the column of embeddings."""
    value_type: pa.DataType = pa.float32()
    if options.dtype == "float16":
        value_type = pa.float16()
    return vector_column(
        "embedding", value_type, options.size, lambda completion: completion.embedding
    )


def boundary_chars(*, choices: bool) -> OutputColumn:
    """Returns the column of context characters that the first scored token covers."""
    return score_column(
        "boundary_chars", pa.int32(), lambda score: score.boundary_chars, choices=choices
    )


def _failed(completion: Completion) -> bool:
    return completion.error_code is not None
