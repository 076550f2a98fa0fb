"""Task score: prompt and continuations of a row."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Boundary, Completion, Request
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import SCORE
from tests.jobs.runs import DEMO
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    """The tokenizer of the demo model."""
    return Tokenizer((DEMO / "tokenizer.model").read_bytes())


def rules_of(tokenizer: Tokenizer) -> RequestRules:
    return replace(RULES, token_spans=tokenizer.token_spans)


def scored(request: Any, number: int = 0) -> list[int]:
    """Returns the tokens of a continuation that are scored."""
    assert isinstance(request, Request), request
    first = request.boundary(number).context_tokens
    return list(request.continuations[number][first:])


def context(request: Any, number: int = 0) -> list[int]:
    """Returns the tokens that a continuation is scored after."""
    assert isinstance(request, Request), request
    first = request.boundary(number).context_tokens
    return [*request.prompt_ids, *request.continuations[number][:first]]


@pytest.mark.parametrize("rules", [RULES, None], ids=["harness", "overlap"])
def test_score_moves_trailing_space_to_continuation(
    rules: RequestRules | None, tokenizer: Tokenizer
) -> None:
    rules = rules or rules_of(tokenizer)
    moved = only_item(prompt_row(prompt="Answer: ", continuation="it"), tokenizer, SCORE, rules)
    plain = only_item(prompt_row(prompt="Answer:", continuation=" it"), tokenizer, SCORE, rules)
    assert moved == plain
    assert isinstance(moved, Request)
    assert (
        list(moved.prompt_ids) + list(moved.continuations[0]) == tokenizer.encode(["Answer: it"])[0]
    )
    assert moved.boundaries == ()


# "▁what" is one token of this tokenizer, "\n\n" is another.
@pytest.mark.parametrize(
    ("prompt", "continuation", "scored_text", "chars"),
    [
        ("it is wh", "at", " what", 3),
        ("it is wh", "at is it", " what is it", 3),
        ("it is\n", "\nit", "\n\nit", 0),
        ("it is\n", "it", "\nit", 0),
        ("it is wh ", "at", " at", 0),
        ("it 漢", "字", " 漢字", 2),
        ("it x", "ﬁ", "ﬁ", 0),
    ],
)
def test_score_tokens_that_overlap_the_continuation(
    prompt: str, continuation: str, scored_text: str, chars: int, tokenizer: Tokenizer
) -> None:
    row = prompt_row(prompt=prompt, continuation=continuation)
    request = only_item(row, tokenizer, SCORE, rules_of(tokenizer))
    joined = tokenizer.encode([prompt + continuation])[0]
    assert context(request) + scored(request) == joined
    assert tokenizer.text(scored(request)).endswith(continuation)
    assert tokenizer.text(scored(request)) == scored_text
    assert isinstance(request, Request)
    assert request.boundary(0).context_chars == chars


def test_score_continuation_without_context_follows_end_of_text(tokenizer: Tokenizer) -> None:
    row = prompt_row(prompt="wh", continuation="at is it")
    rules = replace(rules_of(tokenizer), context_token=7)
    request = only_item(row, tokenizer, SCORE, rules)
    assert context(request) == [7]
    assert scored(request) == tokenizer.encode(["what is it"])[0]
    assert isinstance(request, Request)
    assert request.boundary(0) == Boundary(0, context_chars=2)


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
@pytest.mark.parametrize("rules", [RULES, None], ids=["harness", "overlap"])
def test_score_without_context_scores_all_tokens(
    prompt: str, rules: RequestRules | None, tokenizer: Tokenizer
) -> None:
    rules = replace(rules or rules_of(tokenizer), context_token=7)
    row = prompt_row(prompt=prompt, choices=["it", "at is"])
    request = only_item(row, tokenizer, SCORE, rules)
    assert isinstance(request, Request)
    assert list(request.prompt_ids) == [7]
    joined = tokenizer.encode([f"{prompt}it", f"{prompt}at is"])
    assert [list(ids) for ids in request.continuations] == joined
    assert request.boundaries == ()


def test_score_choices_may_begin_at_different_tokens(tokenizer: Tokenizer) -> None:
    choices = ["at is", " 7", "at"]
    row = prompt_row(prompt="it is wh", choices=choices)
    request = only_item(row, tokenizer, SCORE, rules_of(tokenizer))
    assert isinstance(request, Request)
    for number, choice in enumerate(choices):
        joined = tokenizer.encode(["it is wh" + choice])[0]
        assert context(request, number) + scored(request, number) == joined
    assert [request.boundary(number).context_chars for number in range(3)] == [3, 0, 3]


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="itwhas 7\n漢é:", min_size=2, max_size=24), data=st.data())
def test_score_splits_as_the_definition(text: str, data: st.DataObject, demo: Tokenizer) -> None:
    """The scored tokens are those whose text reaches into the continuation and its white space."""
    length = data.draw(st.integers(1, len(text) - 1))
    assume(text[:length].strip())
    row = prompt_row(prompt=text[:length], continuation=text[length:])
    request = only_item(row, demo, SCORE, rules_of(demo))
    length = len(text[:length].rstrip())

    ids = demo.encode([text])[0]
    assert isinstance(request, Request)
    if context(request) == [RULES.context_token]:
        assert scored(request) == ids
    else:
        assert context(request) + scored(request) == ids

    # The bytes of all tokens are those of the text behind one space.
    boundary_bytes = len(text[:length].encode())
    end_bytes = len(text.encode())
    sizes = [len(demo.token_bytes[token]) for token in ids]
    assert sum(sizes) == end_bytes + 1
    expected = 0
    while sum(sizes[: expected + 1]) - 1 <= boundary_bytes:
        expected += 1
    assert scored(request) == ids[expected:]
    begin = max(sum(sizes[:expected]) - 1, 0)
    covered = text.encode()[begin:boundary_bytes].decode()
    assert request.boundary(0).context_chars == len(covered)


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
