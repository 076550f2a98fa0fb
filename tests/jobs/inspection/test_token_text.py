"""token_text.py: the colour of a token is its probability, and its text is the text."""

import math

import pytest

from jobs.inspection.token_text import COLOURS, coloured_text, legend, style_of


@pytest.mark.parametrize(
    ("probability", "rank"), [(0.001, 0), (0.05, 1), (0.3, 2), (0.7, 3), (0.95, 4), (1.0, 4)]
)
def test_style_follows_the_probability(probability: float, rank: int) -> None:
    assert style_of(math.log(probability)).endswith(COLOURS[rank])
    assert (style_of(math.log(probability)) == "") == (rank == 4)


@pytest.mark.parametrize("logprob", [None, math.nan])
def test_token_without_a_log_prob_has_no_style(logprob: float | None) -> None:
    assert style_of(logprob) == ""


def test_impossible_token_has_the_strongest_style() -> None:
    assert style_of(-math.inf).endswith(COLOURS[0])


def test_character_of_several_tokens_is_whole() -> None:
    text = coloured_text([b" a", "é".encode()[:1], "é".encode()[1:], b"\xff"], [0, -1, -9, None])
    assert text.plain == " aé\ufffd"
    [span] = [span for span in text.spans if span.style]
    assert text.plain[span.start : span.end] == "é"
    assert str(span.style).endswith(COLOURS[0])


def test_control_characters_are_escaped_and_lines_kept() -> None:
    assert coloured_text([b"a\n", b"\x1b[2J"], [0, 0]).plain == "a\n\\x1b[2J"


def test_legend_names_every_colour() -> None:
    assert legend().plain.count("below") == len(COLOURS) - 1
