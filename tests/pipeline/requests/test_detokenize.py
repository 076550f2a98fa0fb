"""The detokenize stage: text of completions."""

from array import array

import pytest

from actors.protocol.messages import Completion, RowRef, Score, token_ids
from pipeline.records import OutputRow
from pipeline.requests.detokenize import to_output_rows
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import GENERATE, PERPLEXITY, SCORE, Task


def test_detokenize_gives_text_to_generated_rows_only(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["what is"])[0]
    good = Completion(RowRef(0, 0), token_ids=token_ids(ids), text_bytes=5, finish_reason="stop")
    failed = Completion.failed(RowRef(0, 1), "empty_prompt", "none")
    assert [row.text for row in to_output_rows([good, failed], GENERATE, tokenizer)] == [
        " what",
        None,
    ]
    assert [row.text for row in to_output_rows([good, failed], GENERATE, None)] == [None, None]
    assert array("i", ids) == good.token_ids


@pytest.mark.parametrize("task", [SCORE, PERPLEXITY])
def test_detokenize_gives_no_text_to_scores(tokenizer: Tokenizer, task: Task) -> None:
    scored = Completion(RowRef(0, 0), scores=(Score(-1.0, is_greedy=True, tokens=1),))
    assert [row.text for row in to_output_rows([scored], task, tokenizer)] == [None]


def test_detokenize_text_of_no_tokens_is_empty(tokenizer: Tokenizer) -> None:
    empty = Completion(RowRef(0, 0), finish_reason="stop")
    assert [row.text for row in to_output_rows([empty], GENERATE, tokenizer)] == [""]


def test_detokenize_passes_other_items_at_their_place(tokenizer: Tokenizer) -> None:
    completion = Completion(RowRef(0, 0), finish_reason="stop")
    items = list(to_output_rows(["a", completion, "b"], GENERATE, tokenizer))
    assert items == ["a", OutputRow(completion, ""), "b"]
