import numpy as np
import pytest

from actors.engine.simulation.synthetic import RowLengths, synthetic_rows


def test_synthetic_rows_have_the_lengths_that_are_given() -> None:
    rows = synthetic_rows(RowLengths(200, 50, prefix_tokens=120), 2000, vocab_size=500, seed=0)

    prompt_lengths = [len(request.prompt_ids) for request in rows.requests]
    assert np.mean(prompt_lengths) == pytest.approx(200, rel=0.03)
    assert np.mean(rows.completion_tokens) == pytest.approx(50, rel=0.03)
    assert 1 <= min(rows.completion_tokens) < 50 < max(rows.completion_tokens) <= 150


def test_synthetic_rows_share_the_prefix_of_their_group() -> None:
    lengths = RowLengths(40, 5, prefix_tokens=30, rows_per_prefix=3)

    rows = synthetic_rows(lengths, 6, vocab_size=500, seed=0)

    prefixes = [request.prompt_ids[:30].tolist() for request in rows.requests]
    assert prefixes[0] == prefixes[1] == prefixes[2]
    assert prefixes[3] == prefixes[4] == prefixes[5]
    assert prefixes[0] != prefixes[3]
    assert rows.requests[0].prompt_ids != rows.requests[1].prompt_ids


def test_synthetic_rows_without_completions_score_single_tokens() -> None:
    rows = synthetic_rows(RowLengths(40, continuations=4), 2, vocab_size=500, seed=0)

    for request in rows.requests:
        assert request.sampling is None
        assert [len(ids) for ids in request.continuations] == [1, 1, 1, 1]


def test_synthetic_request_generates_at_most_its_max_tokens() -> None:
    rows = synthetic_rows(RowLengths(40, 20), 50, vocab_size=500, seed=0)

    for request in rows.requests:
        assert request.sampling is not None
        assert rows.tokens_of(request) <= request.sampling.max_tokens


def test_synthetic_rows_are_equal_for_equal_arguments() -> None:
    lengths = RowLengths(40, 20)

    first = synthetic_rows(lengths, 5, vocab_size=500, seed=1)

    assert synthetic_rows(lengths, 5, vocab_size=500, seed=1) == first
    assert synthetic_rows(lengths, 5, vocab_size=500, seed=2) != first
