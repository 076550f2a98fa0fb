"""Task score: prompt and continuations of a row."""

from dataclasses import replace
from typing import Any

import pytest

from actors.protocol.messages import Completion, Request
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import SCORE
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


def test_score_moves_trailing_space_to_continuation(tokenizer: Tokenizer) -> None:
    moved = only_item(prompt_row(prompt="Answer: ", continuation="it"), tokenizer, SCORE)
    plain = only_item(prompt_row(prompt="Answer:", continuation=" it"), tokenizer, SCORE)
    assert moved == plain
    assert isinstance(moved, Request)
    assert (
        list(moved.prompt_ids) + list(moved.continuations[0]) == tokenizer.encode(["Answer: it"])[0]
    )


def test_score_choices_share_one_prompt(tokenizer: Tokenizer) -> None:
    got = only_item(prompt_row(prompt="Answer:", choices=[" it", " is"]), tokenizer, SCORE)
    assert isinstance(got, Request)
    assert len(got.continuations) == 2
    ids = only_item(
        prompt_row(prompt_token_ids=[5, 6], choices_token_ids=[[7], [8, 9]]), None, SCORE
    )
    assert isinstance(ids, Request)
    assert [list(each) for each in ids.continuations] == [[7], [8, 9]]


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_score_prompt_fits_beside_the_longest_continuation(overflow: Any) -> None:
    rules = replace(RULES, overflow=overflow)
    prompt = list(range(5, 65))  # 60 tokens of 64
    choices: list[list[int]] = [[7] * 4, [7]]
    fitting = prompt_row(prompt_token_ids=prompt, choices_token_ids=choices)
    item = only_item(fitting, None, SCORE, rules)
    assert isinstance(item, Request)
    assert list(item.prompt_ids) == prompt

    longer = prompt_row(prompt_token_ids=prompt, choices_token_ids=[[7], [7] * 5])
    item = only_item(longer, None, SCORE, rules)
    if overflow == "error":
        assert isinstance(item, Completion)
        assert item.error_code == "prompt_too_long"
    else:
        assert isinstance(item, Request)
        assert list(item.prompt_ids) == prompt[1:]


def test_score_text_prompt_may_have_token_ids_as_continuation(tokenizer: Tokenizer) -> None:
    row = prompt_row(prompt="Answer: ", continuation_token_ids=[7, 8])
    item = only_item(row, tokenizer, SCORE)
    assert isinstance(item, Request)
    assert list(item.prompt_ids) == tokenizer.encode(["Answer: "])[0]
    assert [list(ids) for ids in item.continuations] == [[7, 8]]


def test_score_checks_every_choice(tokenizer: Tokenizer) -> None:
    for values in (
        {"prompt": "a", "choices": ["b", None]},
        {"prompt": "a", "choices": ["b", ""]},
        {"prompt_token_ids": [5], "choices_token_ids": [[5], []]},
        {"prompt_token_ids": [5], "choices_token_ids": [[5], [420]]},
    ):
        item = only_item(prompt_row(**values), tokenizer, SCORE)
        assert isinstance(item, Completion), values
        assert item.error_code is not None
