"""finish.py: which of several ends of a completion counts, and from which token on."""

from typing import Any

import pytest

from actors.engine.stopping.finish import Finish, finish_checks
from actors.protocol.sampling import Sampling

EOS = 2
TOKEN_BYTES = [b"", b"a", b"", b"b", b"ab"]


def finish_of(tokens: list[int], **sampling: Any) -> tuple[int, Finish] | None:
    """Returns how many tokens the completion keeps, and why it ends."""
    checks = finish_checks(Sampling(**{"max_tokens": 9, **sampling}), EOS, TOKEN_BYTES)
    for count, token in enumerate(tokens, 1):
        finish = checks.feed(token, count)
        if finish is not None:
            return count, finish
    return None


@pytest.mark.parametrize(
    ("tokens", "sampling", "count", "finish"),
    [
        ([1, 2], {}, 2, Finish("stop", "eos")),
        ([1, 2, 3], {"max_tokens": 3, "ignore_eos": True}, 3, Finish("length")),
        ([1, 2], {"max_tokens": 2}, 2, Finish("stop", "eos")),
        ([3, 1, 3], {"stop": ("ab",)}, 3, Finish("stop", "ab", 1)),
        ([1, 1, 1], {"repetition_max_pattern": 1, "repetition_min_count": 3}, 3,
         Finish("repetition")),
        ([1, 1], {"stop": ("aa",), "max_tokens": 2, "repetition_max_pattern": 1,
                  "repetition_min_count": 2}, 2, Finish("stop", "aa", 0)),
        ([1, 1], {"max_tokens": 2, "repetition_max_pattern": 1, "repetition_min_count": 2}, 2,
         Finish("repetition")),
        ([2, 2], {"repetition_max_pattern": 1, "repetition_min_count": 2}, 1,
         Finish("stop", "eos")),
        ([2, 2], {"repetition_max_pattern": 1, "repetition_min_count": 2, "ignore_eos": True}, 2,
         Finish("repetition")),
    ],
)  # fmt: skip
def test_first_end_in_order_of_precedence_counts(
    tokens: list[int], sampling: dict[str, Any], count: int, finish: Finish
) -> None:
    assert finish_of(tokens, **sampling) == (count, finish)


@pytest.mark.parametrize(
    ("tokens", "sampling", "finish"),
    [
        ([4, 1, 3], {"stop_token_ids": (3,)}, Finish("stop", "3", 3)),
        ([3], {"stop_token_ids": (3,)}, Finish("stop", "3", 0)),
        ([1, 3], {"stop_token_ids": (3,), "stop": ("ab",)}, Finish("stop", "3", 1)),
        ([1, 2], {"stop_token_ids": (2, 3)}, Finish("stop", "eos")),
        ([1, 2], {"stop_token_ids": (2, 3), "ignore_eos": True}, Finish("stop", "2", 1)),
        ([1, 3], {"stop_token_ids": (3,), "max_tokens": 2}, Finish("stop", "3", 1)),
        ([1, 1], {"stop_token_ids": (3,), "max_tokens": 2}, Finish("length")),
    ],
)
def test_stop_token_is_the_reason_and_leaves_no_text(
    tokens: list[int], sampling: dict[str, Any], finish: Finish
) -> None:
    assert finish_of(tokens, **sampling) == (len(tokens), finish)


def test_stop_is_included_in_the_text_on_request() -> None:
    included = {"include_stop_str_in_output": True}
    assert finish_of([3, 1, 4], stop=("ba",), **included) == (2, Finish("stop", "ba", 2))
    # "aab": the text goes on after the stop string within the last token
    assert finish_of([1, 4], stop=("aa",), **included) == (2, Finish("stop", "aa", 2))
    assert finish_of([1, 3], stop_token_ids=(3,), **included) == (2, Finish("stop", "3"))


def test_min_tokens_delay_stop_strings_and_repetitions() -> None:
    # the first token after min_tokens may complete a stop string, the last of them a pattern
    assert finish_of([1, 1, 1, 1], stop=("a",), min_tokens=2) == (3, Finish("stop", "a", 2))
    loop = {"repetition_max_pattern": 1, "repetition_min_count": 2}
    assert finish_of([1, 1, 1, 1], min_tokens=3, **loop) == (3, Finish("repetition"))


def test_completion_without_an_end_continues() -> None:
    assert finish_of([1, 3, 1], stop=("bb",), repetition_max_pattern=2) is None
