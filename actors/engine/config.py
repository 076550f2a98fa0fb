"""How one engine is sized. No JAX: the driver builds this and ships it to the replicas."""

from dataclasses import dataclass
from typing import Literal

from actors.protocol.errors import ModelError
from actors.protocol.size_buckets import CHUNK

StepName = Literal["prefill", "decode", "score", "pool"]  # of the engine's step functions
Pooling = Literal["last", "mean"]  # of the hidden states of a prompt


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes and outputs of one engine; the same for every replica of a run.

    Raises:
        ModelError: a size is not positive, or the sizes contradict each other.
    """

    max_len: int  # longest sequence, prompt and completion together
    # most positions, padding included, that one prefill computes on all data shards together
    prefill_tokens: int = 2048
    chunk: int = CHUNK  # tokens of one row of a prefill: a prompt is padded to a multiple of it
    slots: int = 64  # sequences that decode together, on all data shards
    page_size: int = 16  # tokens of one page of KV cache
    cache_tokens: int | None = None  # tokens the KV cache holds; None: what memory allows
    # K most likely tokens reported beside each generated one; None: no log-probs
    logprobs: int | None = 0
    prompt_logprobs: int | None = None  # the same for prompt tokens
    score_logprobs: int | None = None  # the same for scored tokens; None: their sums only
    tail_logprobs: bool = False  # with score_logprobs: also of all tokens beside the K
    # how hidden states become the embedding of a prompt; None: no embeddings
    pooling: Pooling | None = None
    normalize: bool = False  # embeddings have length 1
    decode_steps: int = 8  # tokens a slot draws per host call
    reuse_prefixes: bool = True
    # the residual stream is split over the mesh's model axis between blocks
    shard_activations: bool = False
    # every call of a kind has one shape and one compiled program, chosen without timing anything
    deterministic: bool = False
    # sampling parameters that requests may set to a non-default value: decode is compiled with the
    # logits processors of these alone
    sampling_parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_len", "prefill_tokens", "chunk", "slots", "page_size", "decode_steps"):
            if getattr(self, name) < 1:
                raise ModelError(f"engine: {name} must be at least 1, got {getattr(self, name)}")
        if self.cache_tokens is not None and self.cache_tokens < self.max_len:
            raise ModelError(
                f"engine: a cache of {self.cache_tokens} tokens cannot hold one sequence of "
                f"max_len {self.max_len}; "
                "lower max_len or raise cache_tokens"
            )
        for name in ("logprobs", "prompt_logprobs", "score_logprobs"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ModelError(f"engine: {name} must be 0 or more, got {value}")
        if self.pooling is not None and self.page_size % self.chunk:
            raise ModelError(
                f"engine: page_size must be a multiple of chunk = {self.chunk} to pool hidden "
                f"states, got {self.page_size}"
            )

    @property
    def target_logprobs(self) -> int:
        """K most likely tokens that score calls report: enough for prompts and scored tokens."""
        return max(self.prompt_logprobs or 0, self.score_logprobs or 0)

    def shard_slots(self, data_shards: int) -> int:
        """Returns the slots of one of the mesh's data shards."""
        return max(1, self.slots // data_shards)
