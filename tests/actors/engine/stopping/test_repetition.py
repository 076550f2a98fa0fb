"""Detection of repetition loops, compared with a search from scratch after every token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.stopping.repetition import RepetitionSearch
from actors.protocol.errors import InvalidParameterError


def ends_at(tokens: list[int], max_pattern: int, min_count: int, armed_from: int = 0) -> int | None:
    """How many tokens the completion has when it is ended."""
    search = RepetitionSearch(max_pattern, min_count)
    for number, token in enumerate(tokens, 1):
        if search.feed(token, armed=number >= armed_from):
            return number
    return None


def is_loop(tokens: list[int], max_pattern: int, min_count: int) -> bool:
    """By definition: the end of `tokens` is a pattern, `min_count` times."""
    sizes = [size for size in range(1, max_pattern + 1) if size * min_count <= len(tokens)]
    return any(tokens[-size * min_count :] == tokens[-size:] * min_count for size in sizes)


@pytest.mark.parametrize(
    ("tokens", "max_pattern", "min_count", "expected"),
    [
        ([7, 7, 7, 7], 1, 4, 4),
        ([7, 7, 7], 1, 4, None),
        ([1, 2, 1, 2, 1, 2, 1], 2, 3, 6),
        ([9, 1, 2, 3, 1, 2, 3, 9], 3, 2, 7),
        ([1, 2, 3, 1, 2, 3], 2, 2, None),
        ([5, 5, 6, 5, 5, 6], 3, 2, 2),  # the shortest pattern is complete first
        ([0, 0], 4, 2, 2),  # token 0 is a token like any other
        ([-1 & 0x7FFFFFFF], 4, 2, None),  # what was before the first token equals nothing
    ],
)
def test_repetition_ends_with_the_token_that_completes_it(
    tokens: list[int], max_pattern: int, min_count: int, expected: int | None
) -> None:
    assert ends_at(tokens, max_pattern, min_count) == expected


def test_unarmed_detector_remembers_tokens_without_ending() -> None:
    assert ends_at([3, 3, 3, 3, 3, 3], 1, 3, armed_from=5) == 5
    assert ends_at([3, 3, 3, 4, 5, 6], 1, 3, armed_from=4) is None


@given(
    st.lists(st.integers(0, 2), max_size=40).flatmap(
        lambda head: st.lists(st.integers(0, 2), max_size=6).flatmap(
            lambda pattern: st.integers(0, 6).map(lambda count: head + pattern * count)
        )
    ),
    st.integers(1, 8),
    st.integers(2, 5),
    st.integers(0, 20),
)
def test_repetition_is_found_at_its_first_token(
    tokens: list[int], max_pattern: int, min_count: int, armed_from: int
) -> None:
    prefixes = range(max(armed_from, 1), len(tokens) + 1)
    expected = next((n for n in prefixes if is_loop(tokens[:n], max_pattern, min_count)), None)
    assert ends_at(tokens, max_pattern, min_count, armed_from) == expected


@pytest.mark.parametrize(("max_pattern", "min_count"), [(0, 4), (-3, 4), (4, 1), (4, 0)])
def test_invalid_pattern_is_refused(max_pattern: int, min_count: int) -> None:
    with pytest.raises(
        InvalidParameterError,
        match=f"max_pattern {max_pattern} and repetition_min_count {min_count}",
    ):
        RepetitionSearch(max_pattern, min_count)
