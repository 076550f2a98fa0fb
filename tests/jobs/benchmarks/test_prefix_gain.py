"""prefix_gain.py: counted by hand."""

import pytest

from actors.protocol.messages import Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs.benchmarks.prefix_gain import ideal_gain, sequences


def test_ideal_gain_counts_complete_earlier_pages() -> None:
    rows = [token_ids(ids) for ids in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 9], [1, 2, 3, 4])]
    assert ideal_gain(rows, 2, last_is_read=False) == pytest.approx(17 / (5 + 1 + 1 + 0))
    assert ideal_gain(rows, 2, last_is_read=True) == pytest.approx(17 / (5 + 1 + 1 + 2))
    assert ideal_gain(rows, 4, last_is_read=False) == pytest.approx(17 / (5 + 1 + 3 + 0))
    assert ideal_gain(rows[:1], 16, last_is_read=True) == 1


def test_sequences_are_the_tokens_computed_without_reuse() -> None:
    ref, prompt = RowRef(0, 0), token_ids([1, 2, 3])
    assert sequences([Request(ref, prompt, Sampling(max_tokens=1))]) == [token_ids([1, 2])]
    choices = tuple(map(token_ids, ([4], [5], [6, 7])))
    assert sequences([Request(ref, prompt, continuations=choices)]) == [
        prompt,
        token_ids([1, 2, 3, 6]),
    ]
