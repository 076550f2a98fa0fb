"""What a new sequence reuses of existing pages: keys and values, and log-probs of their tokens.

    pages that match     [ p0 ][ p1 ][ p2 ]      own tokens    a b c d | e f g h | i j k l | m n
    requested log-probs   b … l, m               pages         p0, p1: keys, and log-probs of b … h
                                                 score pages   p2: log-prob of i, read at h
                                                 computed      i j k l m n: m after l is new

Numbers and lists only: no arrays on devices, no JAX.
"""

from dataclasses import dataclass

import numpy as np

from actors.engine.scheduling.pages import PagePool
from actors.engine.scheduling.sequence import PageTargets, Sequence, SharedPrefixScores, Targets


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Pages that a sequence uses as they are, and log-probs that it need not compute with them."""

    pages: list[int]
    # at most one page more: it holds the token that follows `pages`, whose log-prob is requested
    score_pages: list[int]
    scores: list[SharedPrefixScores]

    @property
    def held(self) -> list[int]:
        """All pages that must stay as they are while the sequence runs."""
        return [*self.pages, *self.score_pages]


NO_SHARED_PREFIX = SharedPrefix([], [], [])


def find_shared_prefix(
    sequence: Sequence, pool: PagePool, matched: list[int], page_size: int
) -> SharedPrefix:
    """Returns the leading pages of `matched` that cost no requested log-prob."""
    if sequence.hidden is not None:
        return SharedPrefix(_pages_with_states(sequence, pool, matched, page_size), [], [])
    targets = sequence.targets
    if not len(targets.positions):
        return SharedPrefix(matched, [], [])

    index_by_token = targets.index_by_token(sequence.tokens[: len(matched) * page_size])
    sources = [pool.targets(page) for page in matched]
    first_lost = _first_lost_position(targets, index_by_token, sources, page_size)
    count = len(matched)
    if first_lost is not None:
        count = min(count, first_lost // page_size)

    scores: list[SharedPrefixScores] = []
    for number, source in enumerate(sources[: count + 1]):
        if source is None:
            continue
        index = _page_part(index_by_token, number, page_size)
        in_pages = targets.positions[index] < count * page_size
        tokens = np.flatnonzero((index >= 0) & in_pages)
        if len(tokens):
            scores.append(SharedPrefixScores(index[tokens], source.targets, source.index[tokens]))

    last_position = count * page_size - 1
    reads_beyond = len(targets.within(last_position, last_position + 1)) > 0
    score_pages = matched[count : count + 1] if reads_beyond else []
    return SharedPrefix(matched[:count], score_pages, scores)


def _pages_with_states(
    sequence: Sequence, pool: PagePool, matched: list[int], page_size: int
) -> list[int]:
    """Returns the leading pages of `matched` that cost no hidden state which is pooled.

    The last token is always computed: a sequence that is not generated ends with a prefill.
    """
    most = (len(sequence.tokens) - 1) // page_size
    pages: list[int] = []
    for page in matched[:most]:
        if pool.states(page) is None:
            break
        pages.append(page)
    return pages


def _first_lost_position(
    targets: Targets,
    index_by_token: np.ndarray,
    sources: list[PageTargets | None],
    page_size: int,
) -> int | None:
    """Returns the first position with a target that no source holds, None where all are held."""
    held = np.zeros(len(targets.positions), np.bool_)
    for number, source in enumerate(sources):
        if source is not None:
            index = _page_part(index_by_token, number, page_size)
            held[index[index >= 0]] = True
    lost = np.flatnonzero(~held)
    return int(targets.positions[lost[0]]) if len(lost) else None


def _page_part(index_by_token: np.ndarray, number: int, page_size: int) -> np.ndarray:
    return index_by_token[number * page_size : (number + 1) * page_size]
