"""stops.py: stop strings across token borders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.stopping.stop_strings import StopMatch, StopSearch
from actors.protocol.errors import InvalidParameterError

BYTES = [b"", b" Q", b":", b"Q:", b" a", "é".encode()[:1], "é".encode()[1:], b"\n\n", b"aa"]


def feed(stops: tuple[str, ...], tokens: list[int], armed_from: int = 0) -> StopMatch | None:
    search = StopSearch(stops, BYTES)
    for number, token in enumerate(tokens):
        match = search.feed(token, armed=number >= armed_from)
        if match is not None:
            return match
    return None


def test_stop_string_spans_tokens_and_characters() -> None:
    assert feed(("Q:",), [4, 1, 2]) == StopMatch("Q:", 3)
    assert feed(("é",), [4, 5, 6]) == StopMatch("é", 2)
    assert feed(("Q:",), [4, 1, 4, 2]) is None


def test_earliest_start_wins_then_the_first_stop_string() -> None:
    assert feed((":", " Q:"), [4, 1, 2]) == StopMatch(" Q:", 2)
    assert feed(("a", "aa"), [8]) == StopMatch("a", 0)
    assert feed(("aa", "a"), [8]) == StopMatch("aa", 0)


def test_unarmed_search_remembers_text_without_stopping() -> None:
    assert feed(("Q:",), [3, 4], armed_from=1) is None
    assert feed(("Q:",), [1, 2], armed_from=1) == StopMatch("Q:", 1)


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="empty string"):
        StopSearch(("",), BYTES)


@given(
    st.lists(st.integers(0, len(BYTES) - 1), max_size=12),
    st.lists(st.sampled_from(["Q:", " a", "aaa", "é", "\n"]), min_size=1),
)
def test_search_stops_at_the_first_completing_token(tokens: list[int], stops: list[str]) -> None:
    match = feed(tuple(stops), tokens)
    prefixes = [b"".join(BYTES[t] for t in tokens[:n]) for n in range(len(tokens) + 1)]
    first = next((text for text in prefixes if any(s.encode() in text for s in stops)), None)
    assert (match is None) == (first is None)
    if match is not None and first is not None:
        assert match.text_bytes == min(first.find(s.encode()) for s in stops if s.encode() in first)
        assert first[match.text_bytes :].startswith(match.stop.encode())
