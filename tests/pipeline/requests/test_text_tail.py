"""The end of a long text has the tokens that the whole text ends with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.requests.text_tail import text_tail
from pipeline.requests.tokenizer import Tokenizer
from tests.jobs.runs import DEMO

WORDS = (
    "what",
    " is",
    "Answer:",
    "it",
    " 12",
    "7",
    "\n",
    "\n\n",
    "  ",
    " ",
    "é",
    "漢字",
    "ﬁ",
    "\t",
    "x",
)
# parts of pieces, other scripts, byte tokens, composed and combining characters
CHARACTERS = "itwhas 7\n\t漢字éü:e\u0301한ㄱ𐍈ﬁ"


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    """The tokenizer of the demo model."""
    return Tokenizer((DEMO / "tokenizer.model").read_bytes())


def check_tail(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """Checks that the tail of a text ends with its last tokens; returns the tail."""
    tail = text_tail(text, tokenizer, tokens)
    assert text.endswith(tail)
    whole_ids, tail_ids = tokenizer.encode([text, tail])
    assert tail_ids[-tokens:] == whole_ids[-tokens:]
    return tail


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS) | st.text(CHARACTERS, max_size=9), max_size=30),
    repeats=st.integers(1, 8),
    tokens=st.integers(1, 6),
)
def test_tail_has_the_last_tokens_of_the_whole_text(
    words: list[str], repeats: int, tokens: int, tokenizer: Tokenizer, demo: Tokenizer
) -> None:
    # The spaces are places to cut: without any, a text of one repeated letter has none.
    text = " it is: ".join(["".join(words)] * repeats)
    for each_tokenizer in (tokenizer, demo):
        check_tail(text, tokens, each_tokenizer)


def test_tail_of_a_published_tokenizer_is_exact(published_tokenizer: Tokenizer) -> None:
    text = "".join(f"Natalia sold {n} clips, 漢字 naïve\n\n  x = {n:,}\n" for n in range(3000))
    for tokens in (1, 7, 100, 1000):
        tail = check_tail(text, tokens, published_tokenizer)
        assert len(tail) < 40 * tokens + 40


def test_tail_is_short_however_long_the_text(demo: Tokenizer) -> None:
    text = "2 + 3 = 5. Which is it? " * 100_000
    assert len(check_tail(text, 64, demo)) <= 16 * 64 + 1


def test_tail_takes_more_of_a_text_with_long_tokens(demo: Tokenizer) -> None:
    text = "Which is" + " " * 5000 + "Which is it? "
    longest_piece = max(len(token) for token in demo.token_bytes)
    assert longest_piece < 5000
    check_tail(text, 64, demo)


def test_tail_without_a_place_to_cut_is_bounded(tokenizer: Tokenizer) -> None:
    text = "\n" * 100_000
    tail = text_tail(text, tokenizer, 8)
    assert len(tail) <= 16 * 8 + 1
    assert len(tokenizer.encode([tail])[0]) > 8


def test_short_text_is_its_own_tail(demo: Tokenizer) -> None:
    for text in ("", "it", "it is what it is"):
        assert text_tail(text, demo, 8) == text
