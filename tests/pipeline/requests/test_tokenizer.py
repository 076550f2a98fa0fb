import hashlib
import io
import json
import re
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Completion, Request, RowRef, token_ids
from actors.protocol.sampling import SamplingParams
from pipeline.errors import ConfigError
from pipeline.records import PromptRow
from pipeline.requests.sampling import effective_seed
from pipeline.requests.tokenizer import RequestRules, Tokenizer, to_output_rows, to_requests

GROK = Path(__file__).parents[4] / "shared" / "data" / "tokenizer"
TEXTS = [
    f"Question {n}: what is {n} times {n + 3}?\nAnswer: it is {n * (n + 3)}, é ü 漢字.\n\n"
    for n in range(400)
]


@pytest.fixture(scope="module")
def model() -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, model_type="bpe", vocab_size=420, byte_fallback=True,
        user_defined_symbols=["\n", "\n\n"], normalization_rule_name="identity", remove_extra_whitespaces=False,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return written.getvalue()


@pytest.fixture(scope="module")
def tokenizer(model: bytes) -> Tokenizer:
    return Tokenizer(model)


@pytest.fixture(scope="module")
def grok() -> Tokenizer:
    if not GROK.is_dir():
        pytest.skip("the published tokenizer is not here")
    return Tokenizer((GROK / "tokenizer.model").read_bytes())


GENERATE = RequestRules("generate", 420, 64, defaults=SamplingParams(max_tokens=8))
SCORE = replace(GENERATE, task="score")
PERPLEXITY = replace(GENERATE, task="perplexity")


def one(
    row: PromptRow, tokenizer: Tokenizer | None, rules: RequestRules = GENERATE
) -> Request | Completion:
    [item] = to_requests([row], tokenizer, rules)
    return item


def row(**values: Any) -> PromptRow:
    return PromptRow(RowRef(3, 5), "id-5", **values)


def decoded_difference(model: bytes, prompt: list[int], output: list[int]) -> str:
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    before, whole = reference.decode(prompt), reference.decode(prompt + output)
    assert whole.startswith(before)
    return str(whole[len(before) :])


def test_text_is_what_decoding_adds_to_the_prompt(model: bytes, tokenizer: Tokenizer) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(3, tokenizer.vocab_size - 1), max_size=30))
    def check(output: list[int]) -> None:
        [prompt] = tokenizer.encode(["Question"])
        assert tokenizer.text(output) == decoded_difference(model, prompt, output)

    check()


def test_text_of_the_published_tokenizer_is_what_decoding_adds(grok: Tokenizer) -> None:
    model = (GROK / "tokenizer.model").read_bytes()

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.one_of(st.integers(0, 131071), st.integers(69, 324)), max_size=30))
    def check(output: list[int]) -> None:
        assert grok.text(output) == decoded_difference(model, [388], output)

    check()


def test_published_goldens(grok: Tokenizer) -> None:
    goldens = json.loads((GROK / "tokenizer_goldens.json").read_text())
    assert (
        hashlib.sha256((GROK / "tokenizer.model").read_bytes()).hexdigest()
        == goldens["tokenizer_sha256"]
    )
    assert grok.encode([each["text"] for each in goldens["encode"]]) == [
        each["ids"] for each in goldens["encode"]
    ]
    rules = RequestRules("score", 131072, 8192)
    for pair in goldens["pairs_lm_eval_encode_pair"]:
        got = one(row(prompt=pair["context"], continuation=pair["continuation"]), grok, rules)
        assert isinstance(got, Request), pair
        assert list(got.prompt_ids) == pair["context_ids"]
        assert list(got.continuations[0]) == pair["continuation_ids"]


def test_eos_is_silent_and_the_leading_space_stays(tokenizer: Tokenizer) -> None:
    [ids] = tokenizer.encode(["what is"])
    assert tokenizer.text([*ids, 2]) == " what is"
    assert tokenizer.text(ids, text_bytes=5) == " what"
    assert tokenizer.text([10**6]) == ""


def test_no_sentencepiece_model_is_said_so() -> None:
    with pytest.raises(ConfigError, match="expected a SentencePiece model, got 4 bytes"):
        Tokenizer(b"nope")


def test_white_space_that_ends_the_context_begins_the_continuation(tokenizer: Tokenizer) -> None:
    moved = one(row(prompt="Answer: ", continuation="it"), tokenizer, SCORE)
    plain = one(row(prompt="Answer:", continuation=" it"), tokenizer, SCORE)
    assert moved == plain
    assert isinstance(moved, Request)
    assert (
        list(moved.prompt_ids) + list(moved.continuations[0]) == tokenizer.encode(["Answer: it"])[0]
    )


def test_choices_share_one_prompt(tokenizer: Tokenizer) -> None:
    got = one(row(prompt="Answer:", choices=[" it", " is"]), tokenizer, SCORE)
    assert isinstance(got, Request)
    assert len(got.continuations) == 2
    ids = one(row(prompt_token_ids=[5, 6], choices_token_ids=[[7], [8, 9]]), None, SCORE)
    assert isinstance(ids, Request)
    assert [list(each) for each in ids.continuations] == [[7], [8, 9]]


def test_perplexity_scores_all_but_the_first_token(tokenizer: Tokenizer) -> None:
    got = one(row(prompt_token_ids=[5, 6, 7]), None, PERPLEXITY)
    assert isinstance(got, Request)
    assert (list(got.prompt_ids), [list(each) for each in got.continuations]) == ([5], [[6, 7]])
    single = one(row(prompt_token_ids=[5]), None, PERPLEXITY)
    assert isinstance(single, Completion)
    assert (single.error_code, single.scores[0].loglikelihood, single.scores[0].tokens) == (
        None,
        0.0,
        0,
    )


BAD_ROWS: list[tuple[dict[str, Any], RequestRules, str, str]] = [
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
    ({"prompt": "  ", "continuation": "a"}, SCORE, "empty_prompt", "white space"),
    ({"prompt": "a", "choices": []}, SCORE, "empty_prompt", "empty list"),
    ({"prompt_token_ids": [5], "continuation": "a"}, SCORE, "invalid_prompt", "both as"),
    (
        {"prompt_token_ids": [5], "continuation_token_ids": [6] * 64},
        SCORE,
        "prompt_too_long",
        "at most 0 tokens",
    ),
]


@pytest.mark.parametrize(("values", "rules", "code", "message"), BAD_ROWS)
def test_a_bad_row_is_one_error_that_names_the_reason(
    values: dict[str, Any], rules: RequestRules, code: str, message: str, tokenizer: Tokenizer
) -> None:
    parameters = {"n": 3} if rules is GENERATE else {}
    got = one(row(parameters=parameters, **values), tokenizer, rules)
    assert isinstance(got, Completion)
    assert (got.ref, got.error_code) == (RowRef(3, 5, 0, 1), code)
    assert re.search(message, str(got.error_message)), got.error_message


def test_parameter_out_of_range_is_an_error_row() -> None:
    got = one(row(prompt_token_ids=[5], parameters={"temperature": -1.0}), None)
    assert isinstance(got, Completion)
    assert got.error_code == "invalid_parameter"
    assert "temperature: expected a number" in str(got.error_message)


def test_max_tokens_leave_room_for_a_prompt() -> None:
    got = one(row(prompt_token_ids=[5], parameters={"max_tokens": 64}), None)
    assert isinstance(got, Completion)
    assert "max_tokens: expected less than --max-len = 64" in str(got.error_message)


def test_samples_have_addresses_and_seeds_of_their_own() -> None:
    parameters = {"n": 3, "seed": 11}
    got = list(to_requests([row(prompt_token_ids=[5], parameters=parameters)], None, GENERATE))
    assert [item.ref for item in got] == [RowRef(3, 5, sample, 3) for sample in range(3)]
    seeds = [item.sampling.seed for item in got if isinstance(item, Request) and item.sampling]
    assert seeds == [effective_seed(11, "id-5", sample) for sample in range(3)]


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_long_prompts_keep_their_end_when_allowed(overflow: Any) -> None:
    got = one(row(prompt_token_ids=list(range(5, 105))), None, replace(GENERATE, overflow=overflow))
    if overflow == "error":
        assert isinstance(got, Completion)
    else:
        assert isinstance(got, Request)
        assert list(got.prompt_ids) == list(range(49, 105))


def test_a_huge_prompt_is_refused_cheaply(grok: Tokenizer) -> None:
    began = time.perf_counter()
    got = one(
        row(prompt="Natalia sold clips to 48 of her friends. " * 10_000),
        grok,
        RequestRules("generate", 131072, 8192),
    )
    assert isinstance(got, Completion)
    assert got.error_code == "prompt_too_long"
    assert time.perf_counter() - began < 0.5


def test_order_is_kept_across_bad_rows_and_calls_of_the_library(tokenizer: Tokenizer) -> None:
    rows = [
        PromptRow(RowRef(0, number), number, prompt=None if number % 7 == 0 else f"what {number}")
        for number in range(600)
    ]
    got = list(to_requests(rows, tokenizer, GENERATE))
    assert [item.ref.row for item in got] == list(range(600))
    for item in got:
        if isinstance(item, Request):
            assert list(item.prompt_ids) == tokenizer.encode([f"what {item.ref.row}"])[0]


def test_only_generated_rows_have_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["what is"])[0]
    good = Completion(RowRef(0, 0), token_ids=token_ids(ids), text_bytes=5, finish_reason="stop")
    failed = Completion.failed(RowRef(0, 1), "empty_prompt", "none")
    assert [row.text for row in to_output_rows([good, failed], tokenizer)] == [" what", None]
    assert [row.text for row in to_output_rows([good, failed], None)] == [None, None]
    assert array("i", ids) == good.token_ids
