"""masked_tokens.py: a masked token that was sampled is an error that names the parameters."""

from typing import Any

import pytest

from actors.engine.stopping.masked_tokens import masked_token_check
from actors.protocol.errors import InvalidParameterError
from actors.protocol.sampling import Sampling

EOS = 2


def first_masked(tokens: list[int], **sampling: Any) -> int | None:
    """Returns the position of the first token that is masked."""
    check = masked_token_check(Sampling(max_tokens=9, **sampling), EOS)
    assert check is not None
    for position, token in enumerate(tokens):
        try:
            check.feed(token)
        except InvalidParameterError:
            return position
    return None


@pytest.mark.parametrize(
    ("tokens", "sampling", "position"),
    [
        ([5, 6, 0], {"allowed_token_ids": (5, 6)}, 2),
        ([5, 6, 5], {"allowed_token_ids": (5, 6)}, None),
        ([5], {"bad_words": ((5,),)}, 0),
        ([6, 5, 5], {"bad_words": ((5, 5),)}, 2),
        ([5, 6, 5], {"bad_words": ((5, 5),)}, None),
        ([5], {"bad_words": ((5, 5),)}, None),
        ([7, 5, 6, 7], {"bad_words": ((5, 6, 7), (6, 6, 7))}, 3),
        ([5, 5, 5], {"stop_token_ids": (5,), "min_tokens": 2}, 0),
        ([6, 6, 5], {"stop_token_ids": (5,), "min_tokens": 2}, None),
        ([6, EOS], {"stop_token_ids": (5,), "min_tokens": 2}, 1),
        ([6, EOS], {"stop_token_ids": (5,), "min_tokens": 2, "ignore_eos": True}, None),
        ([EOS], {"allowed_token_ids": (EOS,), "min_tokens": 1}, 0),
    ],
)
def test_sampled_token_that_is_masked_is_an_error(
    tokens: list[int], sampling: dict[str, Any], position: int | None
) -> None:
    assert first_masked(tokens, **sampling) == position


def test_message_names_the_parameters_and_the_position() -> None:
    sampling = Sampling(max_tokens=9, allowed_token_ids=(5, EOS), bad_words=((5, 5),), min_tokens=4)
    check = masked_token_check(sampling, EOS)
    assert check is not None
    check.feed(5)
    with pytest.raises(
        InvalidParameterError,
        match=r"^allowed_token_ids, bad_words, min_tokens: .* at position 1 of the completion",
    ):
        check.feed(0)


def test_request_without_masks_is_not_checked() -> None:
    assert masked_token_check(Sampling(max_tokens=9, min_tokens=3), EOS) is None
