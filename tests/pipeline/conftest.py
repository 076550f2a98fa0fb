"""Tokenizers of the tests: a small one, trained here, and the published one of Grok-1."""

import io
from pathlib import Path

import pytest
import sentencepiece

from pipeline.requests.tokenizer import Tokenizer

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "tokenizer"
TEXTS = [
    f"Question {n}: what is {n} times {n + 3}?\nAnswer: it is {n * (n + 3)}, é ü 漢字.\n\n"
    for n in range(400)
]


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """The SentencePiece model of `tokenizer`: 420 tokens."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        user_defined_symbols=["\n", "\n\n"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
        num_threads=1,
    )
    return written.getvalue()


@pytest.fixture(scope="session")
def tokenizer(tokenizer_model: bytes) -> Tokenizer:
    return Tokenizer(tokenizer_model)


@pytest.fixture(scope="session")
def published_model() -> bytes:
    """The SentencePiece model of Grok-1: 131072 tokens."""
    if not PUBLISHED.is_dir():
        pytest.skip("the published tokenizer is not on this machine")
    return (PUBLISHED / "tokenizer.model").read_bytes()


@pytest.fixture(scope="session")
def published_tokenizer(published_model: bytes) -> Tokenizer:
    return Tokenizer(published_model)
