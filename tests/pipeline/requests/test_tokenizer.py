"""The SentencePiece model: ids of texts, and text of ids."""

import hashlib
import json

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Request
from pipeline.errors import ConfigError
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import SCORE
from tests.pipeline.conftest import PUBLISHED
from tests.pipeline.tasks.rows import only_item, prompt_row


def decoded_difference(model: bytes, prompt: list[int], output: list[int]) -> str:
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    before, whole = reference.decode(prompt), reference.decode(prompt + output)
    assert whole.startswith(before)
    return str(whole[len(before) :])


def test_text_equals_what_decoding_adds_to_the_prompt(
    tokenizer_model: bytes, tokenizer: Tokenizer
) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(3, tokenizer.vocab_size - 1), max_size=30))
    def check(output: list[int]) -> None:
        [prompt] = tokenizer.encode(["Question"])
        assert tokenizer.text(output) == decoded_difference(tokenizer_model, prompt, output)

    check()


def test_text_of_published_tokenizer_equals_decoding(
    published_tokenizer: Tokenizer, published_model: bytes
) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.one_of(st.integers(0, 131071), st.integers(69, 324)), max_size=30))
    def check(output: list[int]) -> None:
        assert published_tokenizer.text(output) == decoded_difference(
            published_model, [388], output
        )

    check()


def test_encode_gives_published_ids(published_tokenizer: Tokenizer) -> None:
    goldens = json.loads((PUBLISHED / "tokenizer_goldens.json").read_text())
    assert (
        hashlib.sha256((PUBLISHED / "tokenizer.model").read_bytes()).hexdigest()
        == goldens["tokenizer_sha256"]
    )
    assert published_tokenizer.encode([each["text"] for each in goldens["encode"]]) == [
        each["ids"] for each in goldens["encode"]
    ]
    rules = RequestRules(131072, 8192)
    for pair in goldens["pairs_lm_eval_encode_pair"]:
        got = only_item(
            prompt_row(prompt=pair["context"], continuation=pair["continuation"]),
            published_tokenizer,
            SCORE,
            rules,
        )
        assert isinstance(got, Request), pair
        assert list(got.prompt_ids) == pair["context_ids"]
        assert list(got.continuations[0]) == pair["continuation_ids"]


def test_token_spans_lie_in_the_text(tokenizer: Tokenizer) -> None:
    for text in ("what is it", "é\n\nx", "漢 𐍈字", "  x  "):
        [ids] = tokenizer.encode([text])
        spans = tokenizer.token_spans(text)
        assert len(spans) == len(ids)
        assert "".join(text[begin:end] for begin, end in spans) == text
    assert tokenizer.token_spans("") == []


def test_text_keeps_leading_space_and_omits_eos(tokenizer: Tokenizer) -> None:
    [ids] = tokenizer.encode(["what is"])
    assert tokenizer.text([*ids, 2]) == " what is"
    assert tokenizer.text(ids, text_bytes=5) == " what"
    assert tokenizer.text([10**6]) == ""


def test_text_of_ids_beyond_the_tokenizer_is_empty(tokenizer: Tokenizer) -> None:
    last = tokenizer.vocab_size - 1
    assert tokenizer.text([last]) == tokenizer.token_bytes[last].decode()
    assert tokenizer.text([tokenizer.vocab_size, tokenizer.vocab_size + 1]) == ""


def test_tokenizer_rejects_bytes_of_another_kind() -> None:
    with pytest.raises(ConfigError, match="expected a SentencePiece model, got 4 bytes"):
        Tokenizer(b"nope")


@pytest.mark.parametrize("text", ["is", " is", "\n", "\n\n", " what is it", "é", "  x", "漢"])
def test_fragment_has_exactly_the_bytes_of_its_text(text: str, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode_fragment(text)
    assert b"".join(tokenizer.token_bytes[token] for token in tokens) == text.encode()


def test_fragment_with_and_without_space_differ(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_fragment(" is") == tokenizer.encode(["is"])[0]
    assert tokenizer.encode_fragment("is") != tokenizer.encode_fragment(" is")
