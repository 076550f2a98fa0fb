"""The prompt of a row: its text, or its token ids."""

import pytest

from actors.protocol.errors import EmptyPromptError, InvalidTokenError, MissingPromptError
from pipeline.tasks.prompts import prompt_ids, prompt_texts
from tests.pipeline.tasks.rows import RULES, prompt_row


def test_prompt_texts_are_the_text_of_the_prompt() -> None:
    assert prompt_texts(prompt_row(prompt="a")) == ("a",)
    assert prompt_texts(prompt_row(prompt="")) == ("",)
    assert prompt_texts(prompt_row(prompt_token_ids=[5])) == ()
    assert prompt_texts(prompt_row()) == ()


def test_prompt_ids_of_text_are_the_first_that_were_encoded() -> None:
    assert list(prompt_ids(prompt_row(prompt="a"), [[7, 8], [9]], RULES)) == [7, 8]
    with pytest.raises(EmptyPromptError, match="prompt: expected at least one token"):
        prompt_ids(prompt_row(prompt=""), [[]], RULES)


def test_prompt_ids_of_a_column_are_checked() -> None:
    assert list(prompt_ids(prompt_row(prompt_token_ids=[7, 8]), [], RULES)) == [7, 8]
    with pytest.raises(InvalidTokenError, match="prompt_token_ids"):
        prompt_ids(prompt_row(prompt_token_ids=[RULES.vocab_size]), [], RULES)
    with pytest.raises(MissingPromptError, match=r"^prompt: "):
        prompt_ids(prompt_row(), [], RULES)
