"""What a new sequence can take over from pages that are there already: keys and values, and log-probs of the tokens in them.

    pages that match     [ p0 ][ p1 ][ p2 ]          own tokens     a b c d | e f g h | i j k l | m n
    log-probs asked for   b … l, m                   shared         p0, p1: their keys, and the log-probs of b … h
                                                     score_pages        p2: the log-prob of i, which is read where h stands
                                                     computed       i j k l m n, for where l stands nobody has read m

Numbers and lists only: no arrays on devices, no JAX.
"""

from dataclasses import dataclass

import numpy as np

from actors.engine.pages import PagePool
from actors.engine.sequence import Sequence, SharedPrefixScores


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Pages whose content a sequence uses as it is, and the log-probs that it need not compute with them."""

    pages: list[int]
    # at most one page more: it holds the token that follows `pages`, whose log-prob is asked for
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
    """Returns as many leading pages of `matched` as leave no log-prob unread that the sequence asks for."""
    targets = sequence.targets
    if not len(targets.positions):
        return SharedPrefix(matched, [], [])
    readers = [pool.targets(page) for page in matched]
    asking = targets.asking_for(sequence.tokens[: len(matched) * page_size])
    read = np.zeros(len(targets.positions), np.bool_)
    for number, reader in enumerate(readers):
        if reader is not None:
            index = asking[number * page_size : (number + 1) * page_size]
            read[index[index >= 0]] = True
    unread = np.flatnonzero(~read)
    count = (
        min(len(matched), int(targets.positions[unread[0]]) // page_size)
        if len(unread)
        else len(matched)
    )
    scores = []
    for number, reader in enumerate(readers[: count + 1]):
        if reader is None:
            continue
        index = asking[number * page_size : (number + 1) * page_size]
        wanted = np.flatnonzero((index >= 0) & (targets.positions[index] < count * page_size))
        if len(wanted):
            scores.append(SharedPrefixScores(index[wanted], reader.targets, reader.index[wanted]))
    reads_beyond = len(targets.within(count * page_size - 1, count * page_size)) > 0
    return SharedPrefix(matched[:count], matched[count : count + 1] if reads_beyond else [], scores)
