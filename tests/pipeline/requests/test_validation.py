"""Checks of text and token ids of a row."""

from array import array
from typing import Any

import numpy as np
import pytest

from actors.protocol.errors import (
    EmptyPromptError,
    InvalidPromptError,
    InvalidTokenError,
    MissingPromptError,
    PromptTooLongError,
    RequestError,
)
from pipeline.requests.rules import RequestRules
from pipeline.requests.validation import (
    check_encoded,
    check_list,
    check_present,
    check_text,
    check_token_ids,
    fit_prompt,
)

IDS = array("i", range(5, 25))


def test_check_present_rejects_null_only() -> None:
    for value in ("", [], 0, False):
        assert check_present("prompt", value) == value
    with pytest.raises(MissingPromptError, match=r"^prompt: expected text or token ids, got null"):
        check_present("prompt", None)


@pytest.mark.parametrize("text", ["", "plain", "é 漢字 \U0001f600"])
def test_check_text_accepts_unicode(text: str) -> None:
    assert check_text("prompt", text) == text


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, MissingPromptError, "got null"),
        (7, InvalidPromptError, "prompt: expected a string, got int"),
        (["a"], InvalidPromptError, "got list"),
        ("ab\ud800", InvalidPromptError, "prompt: .*lone surrogate at character 2"),
    ],
)
def test_check_text_rejects_other_values(
    value: object, error: type[RequestError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_text("prompt", value)


@pytest.mark.parametrize(
    "value", [[5, 6], (5, 6), array("i", [5, 6]), array("q", [5, 6]), np.array([5, 6])]
)
def test_check_token_ids_returns_a_compact_array(value: Any) -> None:
    ids = check_token_ids("prompt_token_ids", value, 7)
    assert ids == array("i", [5, 6])
    assert ids.typecode == "i"


@pytest.mark.parametrize("empty", [[], (), array("i"), np.array([], np.int32)])
def test_check_list_rejects_lists_without_items(empty: Any) -> None:
    with pytest.raises(EmptyPromptError, match=r"choices: .*at least one item"):
        check_list("choices", empty)


@pytest.mark.parametrize("value", ["12", 12, {"a": 1}])
def test_check_list_rejects_values_of_other_types(value: Any) -> None:
    with pytest.raises(InvalidPromptError, match=f"expected a list, got {type(value).__name__}"):
        check_list("choices", value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 419, 420], "expected ids below 420, got 420 at position 2"),
        ([3, -1, 420], "got -1 at position 1"),
        ([2**31], "from 0 to 419, got one beyond int32"),
        ([-(2**31)], "got -2147483648 at position 0"),
    ],
)
def test_check_token_ids_rejects_ids_outside_vocabulary(ids: list[int], message: str) -> None:
    with pytest.raises(InvalidTokenError, match=f"^prompt_token_ids: .*{message}"):
        check_token_ids("prompt_token_ids", ids, 420)
    if ids[0] < 2**31:
        with pytest.raises(InvalidTokenError, match=message):
            check_token_ids("prompt_token_ids", array("i", ids), 420)


def test_check_token_ids_accepts_the_whole_vocabulary() -> None:
    assert list(check_token_ids("prompt_token_ids", [0, 419], 420)) == [0, 419]


def test_check_token_ids_rejects_items_of_other_types() -> None:
    for item in ("2", None, 1.5):
        with pytest.raises(InvalidPromptError, match=f"integers, got {item!r} at position 1"):
            check_token_ids("prompt_token_ids", [1, item], 420)


def test_check_encoded_rejects_texts_without_tokens() -> None:
    assert check_encoded("continuation", IDS) is IDS
    with pytest.raises(EmptyPromptError, match=r"^continuation: "):
        check_encoded("continuation", array("i"))


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_fit_prompt_keeps_prompts_that_fit(overflow: Any) -> None:
    rules = RequestRules(420, 64, overflow)
    assert fit_prompt(IDS, len(IDS), rules) is IDS


def test_fit_prompt_rejects_one_token_too_many() -> None:
    rules = RequestRules(420, 64)
    with pytest.raises(PromptTooLongError, match=r"at most 19 tokens \(--max-len 64\), got 20"):
        fit_prompt(IDS, len(IDS) - 1, rules)
    message = r"at most 0 tokens \(--max-len 64 less max_tokens = 70\)"
    with pytest.raises(PromptTooLongError, match=message):
        fit_prompt(IDS, -6, rules, "max_tokens = 70")


def test_fit_prompt_truncates_on_the_left_when_allowed() -> None:
    rules = RequestRules(420, 64, "truncate-left")
    assert fit_prompt(IDS, len(IDS) - 1, rules) == IDS[1:]
    assert fit_prompt(IDS, 1, rules) == IDS[-1:]
    for max_tokens in (0, -3):
        with pytest.raises(PromptTooLongError):
            fit_prompt(IDS, max_tokens, rules)
