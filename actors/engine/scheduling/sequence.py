"""One sequence of tokens in the engine, and the log-probs that are requested along it.

A log-prob of a prompt token depends on the tokens up to it and on nothing else, as the keys in a
page do. So a sequence that shares pages also copies the log-probs of the tokens in them from the
targets of the sequence that computes those pages.
"""

from dataclasses import dataclass, field

import numpy as np

from actors.engine.scheduling.hidden_states import HiddenStates
from actors.protocol.messages import Request

NO_TAIL = np.zeros((0, 0), np.float32)


@dataclass(slots=True, eq=False)
class Targets:
    """Requested log-probs: of `tokens[i]` after position `positions[i]`. Positions ascend."""

    positions: np.ndarray  # int32 [n]
    tokens: np.ndarray  # int32 [n]
    logprobs: np.ndarray = field(init=False)  # float32 [n]
    is_greedy: np.ndarray = field(init=False)  # bool [n]
    top_ids: np.ndarray = field(init=False)  # int32 [n, K], K as the engine's programs report it
    top_logprobs: np.ndarray = field(init=False)  # float32 [n, K]
    tail_logprobs: np.ndarray = field(init=False)  # float32 [n, L], L 1 or 0 as they report it
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.positions)
        self.missing = count
        self.logprobs = np.full(count, np.nan, np.float32)
        self.is_greedy = np.zeros(count, np.bool_)
        self.top_ids = np.zeros((count, 0), np.int32)
        self.top_logprobs = np.zeros((count, 0), np.float32)
        self.tail_logprobs = np.zeros((count, 0), np.float32)

    def within(self, start: int, stop: int) -> np.ndarray:
        """Returns the indices of targets whose position lies in [start, stop)."""
        if not len(self.positions):  # of most sequences: a search takes 15 us
            return np.arange(0)
        first, last = np.searchsorted(self.positions, (start, stop))
        return np.arange(first, last)

    def fill(
        self,
        index: np.ndarray,
        logprobs: np.ndarray,
        is_greedy: np.ndarray,
        top_ids: np.ndarray,
        top_logprobs: np.ndarray,
        tail_logprobs: np.ndarray = NO_TAIL,
    ) -> None:
        """Stores the results for the targets `index`."""
        top_k = top_ids.shape[1]
        if self.top_ids.shape[1] != top_k:
            self.top_ids = np.zeros((len(self.positions), top_k), np.int32)
            self.top_logprobs = np.zeros((len(self.positions), top_k), np.float32)
        if self.tail_logprobs.shape[1] != tail_logprobs.shape[1]:
            self.tail_logprobs = np.zeros((len(self.positions), 1), np.float32)
        self.logprobs[index] = logprobs
        self.is_greedy[index] = is_greedy
        self.top_ids[index] = top_ids
        self.top_logprobs[index] = top_logprobs
        if tail_logprobs.size:
            self.tail_logprobs[index] = tail_logprobs
        self.missing -= len(index)

    def index_by_token(self, tokens: np.ndarray) -> np.ndarray:
        """Returns for each of `tokens` [n] the index of the target for it at its place, else -1."""
        index_by_token = np.full(len(tokens), -1, np.int32)
        next_positions = self.positions + 1
        index = np.flatnonzero(next_positions < len(tokens))
        index = index[tokens[next_positions[index]] == self.tokens[index]]
        index_by_token[next_positions[index]] = index
        return index_by_token

    def copy_shared(self, scores: "SharedPrefixScores") -> None:
        """Copies the results that the source has by now."""
        source = scores.source
        self.fill(
            scores.index,
            source.logprobs[scores.source_index],
            source.is_greedy[scores.source_index],
            source.top_ids[scores.source_index],
            source.top_logprobs[scores.source_index],
            source.tail_logprobs[scores.source_index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class PageTargets:
    """The targets that hold the log-probs of a page's tokens: target `index[i]` is for token i."""

    targets: Targets
    # int32 [page_size]; -1 for the first token of a sequence, which has no log-prob
    index: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class SharedPrefixScores:
    """Targets `index` of a sequence get the results of the targets `source_index` of `source`."""

    index: np.ndarray
    source: Targets
    source_index: np.ndarray


def no_targets() -> Targets:
    """Returns an empty set of targets."""
    return Targets(np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens to prefill, then, where the request generates, new tokens to decode.

    The last prompt token of a generating sequence is not prefilled: it is the first input of
    decode, so that sampling happens in one place only and a fully cached prompt needs no prefill.

    The scheduler alone changes a sequence. The engine fills its targets.
    """

    request: Request
    tokens: np.ndarray  # int32; the prompt, and for scoring what follows it
    prefill_length: int  # leading tokens that prefill computes
    targets: Targets
    max_new_tokens: int = 0  # 0: nothing to generate
    hidden: HiddenStates | None = None  # None: nothing to embed
    data_shard: int = -1  # position along the mesh's data axis; owns its pages
    pages: list[int] = field(default_factory=list)
    shared_pages: int = 0  # leading pages that another sequence computes or computed
    # log-probs of tokens in shared pages, and of the one that follows them
    shared_scores: list[SharedPrefixScores] = field(default_factory=list)
    # pages beyond the shared ones that shared scores are read from
    score_pages: list[int] = field(default_factory=list)
    # tokens whose keys and values lie in the pages, once the call in flight has run
    computed: int = 0

    @property
    def generates(self) -> bool:
        """Whether new tokens are decoded after the prompt."""
        return self.max_new_tokens > 0

    @property
    def longest(self) -> int:
        """Tokens this sequence can grow to in the cache.

        The last generated token never enters the cache.
        """
        if self.generates:
            return len(self.tokens) + self.max_new_tokens - 1
        return len(self.tokens)

    @property
    def generated(self) -> int:
        """Tokens that decode has generated, once the call in flight has run."""
        return self.computed + 1 - len(self.tokens)

    @property
    def holds_pages(self) -> bool:
        """Whether it is admitted and not released yet."""
        return bool(self.pages)

    @property
    def prefilled(self) -> bool:
        """Whether prefill has nothing left to do."""
        return self.computed >= self.prefill_length
