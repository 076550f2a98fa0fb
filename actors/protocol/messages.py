"""Messages between driver and replicas.

Standard library only: both sides import this module, and neither imports the other.

A `Batch` contains requests, each with its address and token ids; a `BatchResult` contains one
`Completion` per request, in any order. Token ids and log-probs are `array.array`: compact, pickled
as one block of bytes.
"""

from array import array
from dataclasses import dataclass, field
from typing import Literal

from actors.protocol.plain_text import plain_message
from actors.protocol.sampling import Sampling

type_code_ids = "i"  # int32
type_code_logprobs = "f"  # float32


def token_ids(ids: "array[int] | list[int] | tuple[int, ...]" = ()) -> "array[int]":
    """Returns `ids` as the compact array in which ids travel.

    Raises OverflowError for ids beyond int32.
    """
    return array(type_code_ids, ids)


def logprobs(values: "array[float] | list[float] | tuple[float, ...]" = ()) -> "array[float]":
    """Returns `values` (natural logs) as the compact float32 array in which log-probs travel."""
    return array(type_code_logprobs, values)


@dataclass(frozen=True, slots=True, order=True)
class RowRef:
    """Address of one sample of one row, or of one window of its text.

    It is part of the request and of the completion, so that rows are never looked up.
    """

    shard: int
    row: int  # within the shard
    sample: int = 0
    samples: int = 1  # how many samples this row has in all: the writer counts to it
    window: int = 0  # of a text that is split into windows: which of them
    windows: int = 1  # how many windows this text has in all: they are joined to one completion


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the scored tokens of a continuation begin.

    A token can cover the end of the context and the beginning of the continuation.
    """

    context_tokens: int = 0  # leading tokens of the continuation that belong to the context
    context_chars: int = 0  # characters of the context that the scored tokens cover


CLEAN_BOUNDARY = Boundary()


@dataclass(frozen=True, slots=True)
class Request:
    """Prompt ids with either sampling parameters or continuations to score, or to embed.

    `sampling` requests a completion, `continuations` requests scores, `embeds` requests the pooled
    hidden states of the prompt; never two of them.

    A perplexity request is a score request whose prompt is the first token and whose only
    continuation is the rest.
    """

    ref: RowRef
    prompt_ids: "array[int]"
    sampling: Sampling | None = None
    continuations: "tuple[array[int], ...]" = ()
    row_id: str | int | None = None  # of the input row
    # one per continuation; none: every continuation is scored from its first token
    boundaries: tuple[Boundary, ...] = ()
    embeds: bool = False
    prompt_bytes: int | None = None  # of the row's whole text in UTF-8, where it is known

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence this request can grow to."""
        if self.sampling is not None:
            return len(self.prompt_ids) + self.sampling.max_tokens
        longest_continuation = max((len(ids) for ids in self.continuations), default=0)
        return len(self.prompt_ids) + longest_continuation

    def boundary(self, number: int) -> Boundary:
        """Returns where the scored tokens of continuation `number` begin."""
        if not self.boundaries:
            return CLEAN_BOUNDARY
        return self.boundaries[number]


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that travel to a replica together."""

    requests: tuple[Request, ...]
    # The leading tokens of all its prompts, if they share them.
    prefix_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Sum of the natural-log probabilities of one continuation's tokens, given its prompt."""

    loglikelihood: float
    is_greedy: bool  # every token was the most likely one
    tokens: int
    boundary_chars: int = 0  # characters of the context that the first scored token covers
    # of each scored token, where the run requests them
    token_ids: "array[int] | None" = None
    token_logprobs: "array[float] | None" = None
    top_token_ids: "array[int] | None" = None  # K per token, most likely first, flattened
    top_logprobs: "array[float] | None" = None
    # log of the probability of all tokens beside the K, one per token
    tail_logprobs: "array[float] | None" = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of one request, or its error (`error_code`).

    Log-probs are of the model's own distribution.
    """

    ref: RowRef
    attempts: int = 1  # set by dispatch for a request without attempts left
    error_code: str | None = None
    error_message: str | None = None
    token_ids: "array[int]" = field(default_factory=token_ids)  # EOS included
    # bytes of the completion's text before a stop string; None: all of it
    text_bytes: int | None = None
    finish_reason: Literal["stop", "length", "repetition", "error"] | None = None
    stop_reason: str | None = None  # of "stop": the stop string, or "eos"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None  # prompt tokens not recomputed
    token_logprobs: "array[float] | None" = None  # one per generated token
    top_token_ids: "array[int] | None" = None  # K per generated token, most likely first, flattened
    top_logprobs: "array[float] | None" = None
    prompt_logprobs: "array[float] | None" = None  # one per prompt token but the first
    prompt_top_token_ids: "array[int] | None" = None  # K per prompt token but the first, flattened
    prompt_top_logprobs: "array[float] | None" = None
    scores: tuple[Score, ...] = ()  # one per continuation
    context_ids: "array[int] | None" = None  # the prompt of scores with `tail_logprobs`
    embedding: "array[float] | None" = None  # float32 [D], pooled hidden states of the prompt
    seed: int | None = None
    # Of the input row, where the row failed and its id can be read; set on the driver.
    row_id: str | int | None = None
    prompt_bytes: int | None = None  # as in the request; set on the driver

    @classmethod
    def failed(
        cls,
        ref: RowRef,
        code: str,
        message: str,
        attempts: int = 1,
        *,
        row_id: str | int | None = None,
    ) -> "Completion":
        """Returns the completion of a request that cannot be run."""
        return cls(
            ref=ref,
            row_id=row_id,
            attempts=attempts,
            error_code=code,
            error_message=plain_message(message),
            finish_reason="error",
        )


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """Counters of one replica since it started.

    All grow, so that the difference of two readings is what happened between.
    """

    requests: int = 0
    prompt_tokens: int = 0  # as asked for, reused ones included
    cached_tokens: int = 0  # of these, not recomputed
    prefill_tokens: int = 0  # tokens computed by prefill and scoring
    prefill_positions: int = 0  # the same with padding
    prefill_calls: int = 0
    generated_tokens: int = 0  # tokens drawn and kept
    decode_positions: int = 0  # slots x steps run, idle ones included
    decode_calls: int = 0
    prefill_s: float = 0.0  # without compilation
    decode_s: float = 0.0  # without compilation
    compile_s: float = 0.0  # time that calls waited for a program
    programs: int = 0  # made ready so far: compiled, or read from the cache
    programs_cached: int = 0  # of these, read from the cache
    program_s: float = 0.0  # time to make them ready, in all threads, also beside the work
    busy_s: float = 0.0  # time in steps of the engine, without compilation
    up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Result of one batch: a completion per request, and the replica's counters at that moment."""

    completions: tuple[Completion, ...]
    stats: ReplicaStats


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """Description of a replica that is up."""

    name: str
    node: str
    devices: tuple[str, ...]  # kinds, one per device of the mesh
    mesh: str  # DATAxMODEL
    weight_bytes: int  # on one device
    cache_bytes: int  # on one device
    cache_tokens: int
    slots: int
    load_s: float
    dtype: str = ""  # of activations
    versions: tuple[tuple[str, str], ...] = ()  # of the software that decides about results
