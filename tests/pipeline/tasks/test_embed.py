"""Task embed: one request for a text, one vector for a row."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion, Request
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import EMBED, EmbeddingOptions, LogprobOptions, OutputOptions
from tests.pipeline.tasks.rows import RULES, only_item, prompt_row


def test_embed_requests_the_hidden_states_of_the_whole_text(tokenizer: Tokenizer) -> None:
    item = only_item(prompt_row(prompt="One two"), tokenizer, EMBED)
    assert isinstance(item, Request)
    assert item.embeds
    assert (item.sampling, item.continuations) == (None, ())
    assert list(item.prompt_ids) == tokenizer.encode(["One two"])[0]
    assert item.longest == len(item.prompt_ids)


def test_embed_of_an_empty_text_is_an_error_row(tokenizer: Tokenizer) -> None:
    item = only_item(prompt_row(prompt=""), tokenizer, EMBED)
    assert isinstance(item, Completion)
    assert item.error_code == "empty_prompt"
    assert item.error_message is not None
    assert item.error_message.startswith("prompt: ")


@pytest.mark.parametrize("overflow", ["error", "truncate-left"])
def test_embed_text_beyond_the_context_is_cut_or_fails(overflow: Any) -> None:
    ids = list(range(5, 70))  # 65 tokens of 64
    item = only_item(
        prompt_row(prompt_token_ids=ids), None, EMBED, replace(RULES, overflow=overflow)
    )
    if overflow == "error":
        assert isinstance(item, Completion)
        assert item.error_code == "prompt_too_long"
    else:
        assert isinstance(item, Request)
        assert list(item.prompt_ids) == ids[1:]


def test_embed_column_has_the_width_of_the_model_and_the_type_of_the_flag() -> None:
    options = OutputOptions(
        LogprobOptions(0, None), choices=False, embedding=EmbeddingOptions(6144, "float16")
    )
    types = {column.name: column.type for column in EMBED.output_columns(options)}
    assert types == {
        "prompt_tokens": pa.int32(),
        "cached_tokens": pa.int32(),
        "embedding": pa.list_(pa.float16(), 6144),
    }
