"""Task perplexity: a text given its first token."""

from dataclasses import replace
from typing import Any

import pytest

from actors.protocol.messages import Completion, Request, RowRef
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import PERPLEXITY
from tests.fakes import answer
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


def test_perplexity_splits_a_long_text_into_windows(tokenizer: Tokenizer) -> None:
    text = "Ana has 12 apples and Bén has 7. " * 9
    [ids] = tokenizer.encode([text])
    rules = replace(RULES, max_len=32, overflow="window", window_stride=8)
    requests = list(to_requests([prompt_row(prompt=text)], PERPLEXITY, tokenizer, rules))
    scored: list[int] = []
    for number, request in enumerate(requests):
        assert isinstance(request, Request)
        assert (request.ref.window, request.ref.windows) == (number, len(requests))
        assert request.prompt_bytes == len(text.encode())
        scored += request.continuations[0]
    assert scored == ids[1:]


def test_perplexity_counts_bytes_of_token_ids_by_their_text(tokenizer: Tokenizer) -> None:
    [ids] = tokenizer.encode(["Bén"])
    rules = replace(RULES, text_bytes=tokenizer.text_bytes)
    item = only_item(prompt_row(prompt_token_ids=ids), tokenizer, PERPLEXITY, rules)
    assert item.prompt_bytes == len("Bén".encode())
    item = only_item(prompt_row(prompt_token_ids=ids), None, PERPLEXITY)
    assert item.prompt_bytes is None


def test_perplexity_log_probs_of_the_prompt_are_those_of_scored_tokens() -> None:
    request = only_item(prompt_row(prompt_token_ids=[5, 6, 7]), None, PERPLEXITY)
    assert isinstance(request, Request)
    completion = PERPLEXITY.row_completion(answer(request))
    assert completion.prompt_logprobs == completion.scores[0].token_logprobs
    failed = Completion.failed(RowRef(0, 0), "engine_crash", "text")
    assert PERPLEXITY.row_completion(failed) is failed
