"""generation.py: what ends a completion, and with which reason."""

import numpy as np
import pytest

from actors.engine.generation import GenerationState, start_generation
from tests.actors.engine.engines import generate

EOS = 2
LETTERS = [bytes([97 + token]) for token in range(26)]
NO_TOP_IDS = np.zeros(0, np.int32)
NO_TOP_LOGPROBS = np.zeros(0, np.float32)


def started(max_tokens: int = 9, **sampling: object) -> GenerationState:
    request = generate(0, [5, 6], max_tokens, **sampling)
    assert request.sampling is not None
    return start_generation(request, request.sampling, EOS, LETTERS)


def append_until_end(state: GenerationState, tokens: list[int]) -> int:
    """Appends tokens until one ends the completion; returns how many were appended."""
    for count, token in enumerate(tokens, start=1):
        if state.append(token, -0.5 * count, NO_TOP_IDS, NO_TOP_LOGPROBS):
            return count
    raise AssertionError("no token ended the completion")


@pytest.mark.parametrize(
    ("sampling", "tokens", "count", "finish_reason", "stop_reason"),
    [
        ({"max_tokens": 3}, [7, 8, 9, 10], 3, "length", None),
        ({}, [7, EOS, 9], 2, "stop", "eos"),
        ({"max_tokens": 2}, [7, EOS], 2, "stop", "eos"),
        ({"max_tokens": 4, "ignore_eos": True}, [7, EOS, EOS, 9], 4, "length", None),
        ({"max_tokens": 4, "ignore_eos": True, "min_tokens": 3}, [EOS] * 4, 4, "length", None),
        ({"stop": ("ij",)}, [7, 8, 9, 10], 3, "stop", "ij"),
        ({"stop": ("i",), "min_tokens": 2}, [8, 8, 8, 8], 3, "stop", "i"),
        ({"repetition_max_pattern": 1, "repetition_min_count": 3}, [7] * 5, 3, "repetition", None),
    ],
)
def test_completion_ends_at_the_first_rule_that_applies(
    sampling: dict[str, object],
    tokens: list[int],
    count: int,
    finish_reason: str,
    stop_reason: str | None,
) -> None:
    state = started(**{"max_tokens": 9, **sampling})  # type: ignore[arg-type]
    assert append_until_end(state, tokens) == count
    completion = state.completion(cached_tokens=1, top_k=0)
    assert completion.token_ids.tolist() == tokens[:count]
    assert (completion.finish_reason, completion.stop_reason) == (finish_reason, stop_reason)
    assert completion.token_logprobs is not None
    assert completion.token_logprobs.tolist() == [-0.5 * number for number in range(1, count + 1)]
    assert (completion.prompt_tokens, completion.cached_tokens) == (2, 1)


def test_completion_flattens_the_most_likely_tokens() -> None:
    state = started(max_tokens=2)
    for first in (10, 20):
        top_ids = np.array([first, first + 1], np.int32)
        state.append(first, -1.0, top_ids, np.array([-1.0, -2.0], np.float32))
    completion = state.completion(0, top_k=2)
    assert completion.top_token_ids is not None
    assert completion.top_logprobs is not None
    assert completion.top_token_ids.tolist() == [10, 11, 20, 21]
    assert completion.top_logprobs.tolist() == [-1.0, -2.0, -1.0, -2.0]


def test_completion_ends_with_an_error_where_all_tokens_are_masked() -> None:
    state = started(max_tokens=5, allowed_token_ids=(7,), bad_words=((7, 7),))
    assert append_until_end(state, [7, 0, 7]) == 2
    completion = state.completion(cached_tokens=1, top_k=2)
    assert completion.error_code == "invalid_parameter"
    assert "all tokens are masked at position 1" in str(completion.error_message)
    assert completion.token_ids.tolist() == []


def test_completion_without_logprobs_has_none() -> None:
    state = started(max_tokens=1)
    state.append(7, -1.0, NO_TOP_IDS, NO_TOP_LOGPROBS)
    completion = state.completion(0, top_k=None)
    assert completion.token_logprobs is None
    assert completion.top_token_ids is None
