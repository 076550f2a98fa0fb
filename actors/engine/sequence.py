"""One sequence on its way through the engine: its tokens, how far they are computed, and what has been read off so far.

A log-prob of a prompt token depends on the tokens up to it and on nothing else, as the keys in a
page do. So a sequence that shares pages copies the log-probs of the tokens in them, too, from the
targets of the sequence that computes those pages.
"""

from dataclasses import dataclass, field

import numpy as np

from actors.engine.repetition import RepetitionSearch
from actors.engine.stops import StopMatch, StopSearch
from actors.protocol.messages import Request


@dataclass(slots=True, eq=False)
class Targets:
    """Tokens whose log-prob is asked for: after position `positions[i]`, how likely is `tokens[i]`? Positions ascend."""

    positions: np.ndarray  # int32 [n]
    tokens: np.ndarray  # int32 [n]
    logprobs: np.ndarray = field(init=False)  # float32 [n]
    is_greedy: np.ndarray = field(init=False)  # bool [n]
    top_ids: np.ndarray = field(init=False)  # int32 [n, K], K as the engine's programs report it
    top_logprobs: np.ndarray = field(init=False)  # float32 [n, K]
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        n = self.missing = len(self.positions)
        self.logprobs = np.full(n, np.nan, np.float32)
        self.is_greedy = np.zeros(n, np.bool_)
        self.top_ids = np.zeros((n, 0), np.int32)
        self.top_logprobs = np.zeros((n, 0), np.float32)

    def within(self, start: int, stop: int) -> np.ndarray:
        """Returns the indices of targets whose position lies in [start, stop)."""
        first, last = np.searchsorted(self.positions, (start, stop))
        return np.arange(first, last)

    def fill(
        self,
        index: np.ndarray,
        logprobs: np.ndarray,
        is_greedy: np.ndarray,
        top_ids: np.ndarray,
        top_logprobs: np.ndarray,
    ) -> None:
        """Stores what was computed for the targets `index`."""
        if self.top_ids.shape[1] != top_ids.shape[1]:
            self.top_ids = np.zeros((len(self.positions), top_ids.shape[1]), np.int32)
            self.top_logprobs = np.zeros((len(self.positions), top_ids.shape[1]), np.float32)
        self.logprobs[index] = logprobs
        self.is_greedy[index] = is_greedy
        self.top_ids[index] = top_ids
        self.top_logprobs[index] = top_logprobs
        self.missing -= len(index)

    def asking_for(self, tokens: np.ndarray) -> np.ndarray:
        """Returns for each of `tokens` [n] the index of the target that asks for it where it stands, -1 where none does."""
        found = np.full(len(tokens), -1, np.int32)
        index = np.flatnonzero(self.positions + 1 < len(tokens))
        index = index[tokens[self.positions[index] + 1] == self.tokens[index]]
        found[self.positions[index] + 1] = index
        return found

    def copy_shared(self, scores: "SharedPrefixScores") -> None:
        """Takes over what the source has computed by now."""
        source, at = scores.source, scores.source_index
        self.fill(
            scores.index,
            source.logprobs[at],
            source.is_greedy[at],
            source.top_ids[at],
            source.top_logprobs[at],
        )


@dataclass(frozen=True, slots=True, eq=False)
class PageTargets:
    """Who reads the log-probs of a page's tokens: the target `index[i]` of `targets` asks for the page's token i."""

    targets: Targets
    # int32 [page_size]; -1 for the first token of a sequence, which nothing predicts
    index: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class SharedPrefixScores:
    """Targets `index` of a sequence get what the targets `source_index` of another one hold."""

    index: np.ndarray
    source: Targets
    source_index: np.ndarray


def no_targets() -> Targets:
    """Returns an empty set of targets."""
    return Targets(np.zeros(0, np.int32), np.zeros(0, np.int32))


@dataclass(slots=True, eq=False)
class GenerationState:
    """The completion of a sequence so far."""

    # grok-1: one list of all tokens is shared by all slots, right for one slot only; here every
    # sequence has its own
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_ids: list[np.ndarray] = field(default_factory=list)
    top_logprobs: list[np.ndarray] = field(default_factory=list)
    search: StopSearch | None = None
    match: StopMatch | None = None
    repetition: RepetitionSearch | None = None
    in_loop: bool = False  # the last token completed a pattern that `repetition` looks for


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens to compute (`goal` of them by prefill), then, when it generates, tokens to draw.

    The last prompt token of a generating sequence is not prefilled: it is the first input of decode,
    so that drawing happens in one place only and a prompt that is wholly cached costs no prefill at
    all.
    """

    request: Request
    tokens: np.ndarray  # int32; the prompt, and for scoring what follows it
    goal: int  # tokens that prefill computes
    targets: Targets
    generation: GenerationState | None = None  # None: nothing to generate
    data_shard: int = -1  # position along the mesh's data axis; owns its pages
    pages: list[int] = field(default_factory=list)
    shared: int = 0  # leading pages that somebody else computes or computed
    # log-probs of tokens in shared pages, and of the one that follows them
    shared_scores: list[SharedPrefixScores] = field(default_factory=list)
    # pages beyond the shared ones that shared scores are read from
    score_pages: list[int] = field(default_factory=list)
    computed: int = 0  # tokens whose keys and values lie in the pages

    @property
    def longest(self) -> int:
        """Tokens this sequence can grow to in the cache.

        The last drawn token is never put there.
        """
        if self.generation is None or self.request.sampling is None:
            return len(self.tokens)
        return len(self.tokens) + self.request.sampling.max_tokens - 1

    @property
    def prefilled(self) -> bool:
        """Whether prefill has nothing left to do."""
        return self.computed >= self.goal
