"""Pieces of text with log-probs, and the rank of a probability."""

import math

import pytest

from pipeline.requests.token_text import PROBABILITY_LIMITS, probability_rank, text_pieces


def test_pieces_join_bytes_of_one_character() -> None:
    tokens = [b" a", "é".encode()[:1], "é".encode()[1:], b"\xff"]
    assert list(text_pieces(tokens, [-1.0, -2.0, -3.0, -4.0])) == [
        (" a", -1.0),
        ("é", -3.0),
        ("\ufffd", None),
    ]


@pytest.mark.parametrize(
    ("logprob", "rank"),
    [(-math.inf, 0), (math.log(0.05), 1), (math.log(0.7), 3), (0.0, 4), (0.001, 4)],
)
def test_rank_follows_the_probability(logprob: float, rank: int) -> None:
    assert probability_rank(logprob) == rank


@pytest.mark.parametrize("logprob", [None, math.nan])
def test_token_without_log_prob_has_the_highest_rank(logprob: float | None) -> None:
    assert probability_rank(logprob) == len(PROBABILITY_LIMITS)
