"""Task and options -> the one Arrow schema of a run's output, the same for rows that worked and rows that failed.

Columns by task (`id` and passthrough columns first):
    all                 sample_index status error_code error_message attempts | prompt_tokens cached_tokens
    generate            text token_ids finish_reason stop_reason completion_tokens seed
      --logprobs K      token_logprobs cumulative_logprob, K > 0: top_token_ids top_logprobs
    score, perplexity   loglikelihood is_greedy scored_tokens, lists with one entry per choice when the input has `choices`
    --prompt-logprobs K prompt_logprobs, K > 0: prompt_top_token_ids prompt_top_logprobs
"""

from typing import Literal, Protocol

import pyarrow as pa

Task = Literal["generate", "score", "perplexity"]

SCHEMA_VERSION = "1"
VERSION_KEY = b"schema_version"
FINGERPRINT_KEY = b"run_fingerprint"

_IDS = pa.list_(pa.int32())
_LOGPROBS = pa.list_(pa.float32())
_STATUS = (
    ("sample_index", pa.int32()),
    ("status", pa.string()),
    ("error_code", pa.string()),
    ("error_message", pa.string()),
    ("attempts", pa.int32()),
)
_COMPLETION = (
    ("text", pa.string()),
    ("token_ids", _IDS),
    ("finish_reason", pa.string()),
    ("stop_reason", pa.string()),
    ("prompt_tokens", pa.int32()),
    ("completion_tokens", pa.int32()),
    ("cached_tokens", pa.int32()),
)
_SCORED = (("prompt_tokens", pa.int32()), ("cached_tokens", pa.int32()))
_SCORE = (("loglikelihood", pa.float64()), ("is_greedy", pa.bool_()), ("scored_tokens", pa.int32()))
_CHOSEN = (("token_logprobs", _LOGPROBS), ("cumulative_logprob", pa.float64()))
_TOP = (("top_token_ids", pa.list_(_IDS)), ("top_logprobs", pa.list_(_LOGPROBS)))
_PROMPT = (("prompt_logprobs", _LOGPROBS),)
_PROMPT_TOP = (
    ("prompt_top_token_ids", pa.list_(_IDS)),
    ("prompt_top_logprobs", pa.list_(_LOGPROBS)),
)
_SEED = (("seed", pa.int64()),)


class HasPassthrough(Protocol):
    """What is needed of the input's schema: `id` first, then the columns that pass through unchanged."""

    @property
    def passthrough(self) -> pa.Schema:
        """`id` first, then the columns that pass through."""
        ...


def task_columns(task: Task) -> frozenset[str]:
    """Returns the names of all columns that a run of this task may write: no passthrough column may have one of them."""
    own = (*_COMPLETION, *_CHOSEN, *_TOP, *_SEED) if task == "generate" else (*_SCORED, *_SCORE)
    return frozenset(name for name, _ in (*_STATUS, *own, *_PROMPT, *_PROMPT_TOP)) | {"id"}


def output_schema(
    inputs: HasPassthrough,
    *,
    task: Task,
    logprobs: int | None,
    prompt_logprobs: int | None,
    choices: bool,
) -> pa.Schema:
    """Returns the schema of the run's parts.

    Args:
        inputs: the input's schema, for `id` and the passthrough columns.
        task: what the run does.
        logprobs: K of --logprobs; None: no log-probs of generated tokens.
        prompt_logprobs: K of --prompt-logprobs; None: no log-probs of the prompt.
        choices: whether a scored row has several continuations.
    """
    columns = list(_STATUS)
    if task == "generate":
        columns += _COMPLETION
        columns += _CHOSEN if logprobs is not None else ()
        columns += _TOP if logprobs else ()
    else:
        columns += _SCORED
        columns += ((name, pa.list_(kind) if choices else kind) for name, kind in _SCORE)
    columns += _PROMPT if prompt_logprobs is not None else ()
    columns += _PROMPT_TOP if prompt_logprobs else ()
    columns += _SEED if task == "generate" else ()
    fields = [*inputs.passthrough, *(pa.field(name, kind) for name, kind in columns)]
    return pa.schema(fields, metadata={VERSION_KEY: SCHEMA_VERSION.encode()})
