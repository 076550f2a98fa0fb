"""Output columns that tasks choose from."""

import pyarrow as pa

from actors.protocol.messages import Completion
from pipeline.output.columns import (
    OutputColumn,
    score_column,
    sum_column,
    text_column,
    token_column,
    top_column,
    value_column,
)

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


def boundary_chars(*, choices: bool) -> OutputColumn:
    """Returns the column of context characters that the first scored token covers."""
    return score_column(
        "boundary_chars", pa.int32(), lambda score: score.boundary_chars, choices=choices
    )


def _failed(completion: Completion) -> bool:
    return completion.error_code is not None
