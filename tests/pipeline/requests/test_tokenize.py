"""The tokenize stage: rows in, requests and error completions out."""

import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.protocol.messages import Completion, Request, RowRef
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import CHARS_PER_TOKEN, to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import GENERATE, PERPLEXITY, SCORE, Task
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row

BAD_ROWS: list[tuple[dict[str, Any], Task, str, str]] = [
    ({}, GENERATE, "missing_prompt", "got null"),
    ({"prompt": ""}, GENERATE, "empty_prompt", "at least one token"),
    ({"prompt_token_ids": []}, GENERATE, "empty_prompt", "empty list"),
    ({"prompt": 7}, GENERATE, "invalid_prompt", "got int"),
    ({"prompt": "\ud800"}, GENERATE, "invalid_prompt", "surrogate"),
    ({"prompt_token_ids": [1, None]}, GENERATE, "invalid_prompt", "list of integers"),
    ({"prompt_token_ids": "12"}, GENERATE, "invalid_prompt", "got str"),
    ({"prompt_token_ids": [1, 420]}, GENERATE, "invalid_token", "got 420 at position 1"),
    ({"prompt_token_ids": [-1]}, GENERATE, "invalid_token", "got -1"),
    ({"prompt_token_ids": [2**40]}, GENERATE, "invalid_token", "int32"),
    ({"prompt_token_ids": [5] * 57}, GENERATE, "prompt_too_long", "at most 56 tokens.*got 57"),
    ({"prompt": "what is it? " * 100_000}, GENERATE, "prompt_too_long", "more than 128"),
    ({"prompt": "a", "continuation": None}, SCORE, "missing_prompt", "continuation"),
    ({"prompt": "a", "continuation": ""}, SCORE, "empty_prompt", "continuation"),
    ({"prompt": "a", "choices": []}, SCORE, "empty_prompt", "empty list"),
    ({"prompt_token_ids": [5], "continuation": "a"}, SCORE, "invalid_prompt", "both as"),
    (
        {"prompt_token_ids": [5], "continuation_token_ids": [6] * 64},
        SCORE,
        "prompt_too_long",
        "at most 0 tokens",
    ),
]


@pytest.mark.parametrize(("values", "task", "code", "message"), BAD_ROWS)
def test_tokenize_bad_row_becomes_one_error(
    values: dict[str, Any], task: Task, code: str, message: str, tokenizer: Tokenizer
) -> None:
    parameters = {"n": 3} if task is GENERATE else {}
    got = only_item(prompt_row(parameters=parameters, **values), tokenizer, task)
    assert isinstance(got, Completion)
    assert (got.ref, got.error_code) == (RowRef(3, 5, 0, 1), code)
    assert re.search(message, str(got.error_message)), got.error_message


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_tokenize_truncates_long_prompts_on_the_left(overflow: Any) -> None:
    got = only_item(
        prompt_row(prompt_token_ids=list(range(5, 105))),
        None,
        rules=replace(RULES, overflow=overflow),
    )
    if overflow == "error":
        assert isinstance(got, Completion)
    else:
        assert isinstance(got, Request)
        assert list(got.prompt_ids) == list(range(49, 105))


def test_tokenize_rejects_huge_prompt_by_its_beginning(published_tokenizer: Tokenizer) -> None:
    prompt = "Natalia sold clips to 48 of her friends. " * 10_000
    counting: Any = CountingTokenizer(published_tokenizer)
    item = only_item(prompt_row(prompt=prompt), counting, rules=RequestRules(131072, 8192))
    assert isinstance(item, Completion)
    assert item.error_code == "prompt_too_long"
    assert counting.encoded_chars == CHARS_PER_TOKEN * 8192


def test_tokenize_keeps_order_across_calls_of_the_library(tokenizer: Tokenizer) -> None:
    rows = [
        PromptRow(RowRef(0, number), number, prompt=None if number % 7 == 0 else f"what {number}")
        for number in range(600)
    ]
    got = list(to_requests(rows, GENERATE, tokenizer, RULES))
    assert [item.ref.row for item in got] == list(range(600))
    for item in got:
        if isinstance(item, Request):
            assert list(item.prompt_ids) == tokenizer.encode([f"what {item.ref.row}"])[0]


def test_tokenize_measures_the_beginning_only_where_overflow_is_an_error(
    tokenizer: Tokenizer,
) -> None:
    text = "what is it? " * 1000
    item = only_item(prompt_row(prompt=text), tokenizer, rules=replace(RULES, overflow="error"))
    assert isinstance(item, Completion)
    assert "more than 128 in 12000 characters" in str(item.error_message)
    rules = replace(RULES, overflow="truncate-left")
    item = only_item(prompt_row(prompt=text), tokenizer, rules=rules)
    assert isinstance(item, Request)
    assert list(item.prompt_ids) == tokenizer.encode([text])[0][-56:]


@pytest.mark.parametrize("task", [GENERATE, PERPLEXITY, SCORE])
def test_tokenize_of_a_huge_prompt_takes_little_memory(task: Task, tokenizer: Tokenizer) -> None:
    text = "what is it? " * 400_000 + "Answer:"
    row = prompt_row(prompt=text)
    if task is SCORE:
        row = prompt_row(prompt=text, choices=[" it", " is", " 7"] * 20)
    rules = replace(RULES, overflow="truncate-left", token_spans=tokenizer.token_spans)
    tracemalloc.start()
    request = only_item(row, tokenizer, task, rules)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(request, Request)
    assert peak_bytes < 10_000_000
    ids = [*request.prompt_ids]
    if task is PERPLEXITY:
        ids += request.continuations[0]
    [end_ids] = tokenizer.encode([text[-4000:]])
    assert ids == end_ids[-len(ids) :]
    assert len(ids) >= 56


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_tokenize_rejects_huge_continuation_by_its_beginning(
    overflow: Any, tokenizer: Tokenizer
) -> None:
    counting: Any = CountingTokenizer(tokenizer)
    rules = replace(RULES, overflow=overflow)
    huge = "what is it? " * 1000
    for row in (
        prompt_row(prompt="a", continuation=huge),
        prompt_row(prompt="a", choices=["b", huge]),
    ):
        item = only_item(row, counting, SCORE, rules)
        assert isinstance(item, Completion)
        assert item.error_code == "prompt_too_long"
        assert "more than 128 in 12000 characters; raise --max-len" in str(item.error_message)
    assert counting.encoded_chars == 2 * CHARS_PER_TOKEN * 64


class CountingTokenizer:
    """Counts the characters that it encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.encoded_chars = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.encoded_chars += sum(map(len, texts))
        return self.tokenizer.encode(texts)


class LongTokens:
    """A tokenizer of `chars` characters per token."""

    vocab_size = 420

    def __init__(self, chars: int) -> None:
        self.chars = chars
        self.encoded_chars = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.encoded_chars += sum(map(len, texts))
        return [[5] * (len(text) // self.chars) for text in texts]


@pytest.mark.parametrize(
    ("chars_per_token", "message", "encoded_chars"),
    [
        (1, "more than 128 in 6400 characters", 1024),  # only the beginning is encoded
        (8, "at most 56 tokens .*, got 800;", 1024 + 6400),  # 128 tokens in the beginning: unsure
        (100, "at most 56 tokens .*, got 64;", 1024 + 6400),
    ],
)
def test_tokenize_decides_by_the_beginning_only_when_it_is_sure(
    chars_per_token: int, message: str, encoded_chars: int
) -> None:
    tokenizer: Any = LongTokens(chars_per_token)
    item = only_item(prompt_row(prompt="x" * 6400), tokenizer)
    assert isinstance(item, Completion)
    assert re.search(message, str(item.error_message)), item.error_message
    assert tokenizer.encoded_chars == encoded_chars


def test_tokenize_text_without_a_tokenizer_fails_its_row() -> None:
    rows = [prompt_row(prompt="a"), prompt_row(prompt_token_ids=[5])]
    first, second = to_requests(rows, GENERATE, None, RULES)
    assert isinstance(first, Completion)
    assert "--tokenizer" in str(first.error_message)
    assert isinstance(second, Request)


def test_tokenize_passes_other_items_at_their_place() -> None:
    unreadable = Completion.failed(RowRef(0, 0), "invalid_prompt", "not UTF-8")
    good = prompt_row(prompt_token_ids=[5])
    first, request, marker, last = to_requests(
        [unreadable, good, "marker", unreadable], GENERATE, None, RULES
    )
    assert (first, marker, last) == (unreadable, "marker", unreadable)
    assert isinstance(request, Request)


@pytest.mark.parametrize("task", [GENERATE, SCORE, PERPLEXITY])
def test_tokenize_items_carry_the_id_of_their_row(task: Task) -> None:
    rows = [
        prompt_row(prompt_token_ids=[5, 6], continuation_token_ids=[7]),
        prompt_row(prompt_token_ids=[5], continuation_token_ids=[7]),
        prompt_row(prompt_token_ids=[]),
    ]
    assert [item.row_id for item in to_requests(rows, task, None, RULES)] == ["id-5"] * 3
