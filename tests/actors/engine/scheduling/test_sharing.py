"""sharing.py: which pages a sequence reuses without losing a requested log-prob."""

import numpy as np

from actors.engine.scheduling.pages import PagePool, page_keys
from actors.engine.scheduling.sequence import PageTargets, Sequence, Targets, no_targets
from actors.engine.scheduling.sharing import find_shared_prefix
from tests.actors.engine.engines import score

PAGE_SIZE = 4
PROMPT = list(range(1, 13))


def sequence(tokens: list[int], targets: Targets) -> Sequence:
    return Sequence(score(0, tokens, [1]), np.asarray(tokens), len(tokens), targets)


def prompt_targets(tokens: list[int], first: int = 0) -> Targets:
    """Requests the log-prob of every token after position `first`."""
    positions = np.arange(first, len(tokens) - 1, dtype=np.int32)
    return Targets(positions, np.asarray(tokens, np.int32)[positions + 1])


def pool_with(tokens: list[int], targets: Targets | None) -> tuple[PagePool, list[int]]:
    """Returns a pool in which the pages of `tokens` are promised, and those pages."""
    pool = PagePool(16)
    keys = page_keys(tokens, PAGE_SIZE)
    pages = pool.allocate([], len(keys))
    assert pages is not None
    for number, (page, key) in enumerate(zip(pages, keys, strict=True)):
        held = None
        if targets is not None:
            index = targets.index_by_token(np.asarray(tokens, np.int32))
            held = PageTargets(targets, index[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
        pool.promise(page, key, held)
    return pool, pages


def test_sequence_without_targets_shares_all_matching_pages() -> None:
    pool, pages = pool_with(PROMPT, None)
    prefix = find_shared_prefix(sequence(PROMPT, no_targets()), pool, pages, PAGE_SIZE)
    assert (prefix.pages, prefix.score_pages, prefix.scores) == (pages, [], [])


def test_sequence_recomputes_pages_without_logprobs() -> None:
    pool, pages = pool_with(PROMPT, None)
    reader = sequence(PROMPT, prompt_targets(PROMPT, first=6))
    prefix = find_shared_prefix(reader, pool, pages, PAGE_SIZE)
    assert (prefix.pages, prefix.score_pages, prefix.scores) == (pages[:1], [], [])


def test_shared_scores_point_at_the_same_tokens_of_the_source() -> None:
    source = prompt_targets(PROMPT)
    pool, pages = pool_with(PROMPT, source)
    tokens = [*PROMPT, 50, 51]
    reader = sequence(tokens, prompt_targets(tokens, first=2))
    prefix = find_shared_prefix(reader, pool, pages, PAGE_SIZE)
    assert prefix.pages == pages[:2], "the log-prob of token 50 is read at the end of page 2"
    assert prefix.score_pages == pages[2:3], "page 2 holds the log-prob read at the end of page 1"
    assert prefix.held == pages

    copied: list[int] = []
    for scores in prefix.scores:
        assert scores.source is source
        own = reader.targets
        assert (
            own.positions[scores.index].tolist() == source.positions[scores.source_index].tolist()
        )
        assert own.tokens[scores.index].tolist() == source.tokens[scores.source_index].tolist()
        copied += own.positions[scores.index].tolist()
    assert copied == list(range(2, 8)), "positions of the shared pages, each one once"
