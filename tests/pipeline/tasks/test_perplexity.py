"""Task perplexity: a text given its first token."""

from dataclasses import replace
from typing import Any

import pytest

from actors.protocol.messages import Completion, Request
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import PERPLEXITY
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


def test_perplexity_scores_all_but_the_first_token(tokenizer: Tokenizer) -> None:
    got = only_item(prompt_row(prompt_token_ids=[5, 6, 7]), None, PERPLEXITY)
    assert isinstance(got, Request)
    assert (list(got.prompt_ids), [list(each) for each in got.continuations]) == ([5], [[6, 7]])
    single = only_item(prompt_row(prompt_token_ids=[5]), None, PERPLEXITY)
    assert isinstance(single, Completion)
    assert (single.error_code, single.scores[0].loglikelihood, single.scores[0].tokens) == (
        None,
        0.0,
        0,
    )


@pytest.mark.parametrize("length", [2, 3, 63, 64])
def test_perplexity_text_may_fill_the_context(length: int) -> None:
    ids = list(range(5, 5 + length))
    item = only_item(prompt_row(prompt_token_ids=ids), None, PERPLEXITY)
    assert isinstance(item, Request)
    assert list(item.prompt_ids) == ids[:1]
    assert [list(continuation) for continuation in item.continuations] == [ids[1:]]


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_perplexity_text_beyond_the_context_is_cut_or_fails(overflow: Any) -> None:
    ids = list(range(5, 70))  # 65 tokens of 64
    rules = replace(RULES, overflow=overflow)
    item = only_item(prompt_row(prompt_token_ids=ids), None, PERPLEXITY, rules)
    if overflow == "error":
        assert isinstance(item, Completion)
        assert item.error_code == "prompt_too_long"
    else:
        assert isinstance(item, Request)
        assert [*item.prompt_ids, *item.continuations[0]] == ids[1:]
