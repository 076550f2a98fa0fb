"""Sample rows of a report: the first rows with their results, bounded, without credentials."""

import json
from typing import Any

import pytest

from actors.protocol.messages import Completion, RowRef, Score, logprobs, token_ids
from pipeline.monitoring.sample_rows import MAX_CHARS, MAX_ROWS, MAX_TOKENS, SampleRows
from pipeline.records import OutputRow, PromptRow
from pipeline.requests.tokenizer import Tokenizer

TEXT = " the sum is 5"


def sampled(
    prompt: PromptRow, text: str | None = None, **completion: Any
) -> tuple[SampleRows, OutputRow]:
    samples = SampleRows()
    list(samples.prompts([prompt]))
    row = OutputRow(Completion(prompt.ref, **completion), text)
    list(samples.results([row]))
    return samples, row


def test_samples_are_the_first_rows_in_the_order_of_the_input() -> None:
    samples = SampleRows()
    prompts = [PromptRow(RowRef(0, row), row, prompt="p") for row in range(2 * MAX_ROWS)]
    results = [OutputRow(Completion(prompt.ref), "t") for prompt in reversed(prompts)]
    notice = object()

    assert list(samples.prompts([*prompts, notice])) == [*prompts, notice]
    assert list(samples.results([notice, *results])) == [notice, *results]
    assert [row["id"] for row in samples.report()] == list(range(MAX_ROWS))


def test_second_sample_of_a_row_is_left_out() -> None:
    prompt = PromptRow(RowRef(0, 0), "a", prompt="p")
    samples = SampleRows()
    list(samples.prompts([prompt]))
    second = OutputRow(Completion(RowRef(0, 0, 1, 2)), "second")
    first = OutputRow(Completion(RowRef(0, 0, 0, 2)), "first")
    list(samples.results([second, first]))
    assert [row["text"] for row in samples.report()] == ["first"]


def test_tokens_have_text_and_log_prob(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([TEXT])[0]
    values = [-0.5 * number for number in range(len(ids))]
    samples, _ = sampled(
        PromptRow(RowRef(0, 0), "a", prompt="2 + 3"),
        TEXT,
        token_ids=token_ids(ids),
        token_logprobs=logprobs(values),
        finish_reason="stop",
        prompt_tokens=5,
    )
    [row] = samples.report(tokenizer)
    assert [logprob for _, logprob in row["tokens"]] == values
    assert "".join(piece for piece, _ in row["tokens"]).strip() == TEXT.strip()
    assert (row["prompt"], row["text"], row["finish_reason"]) == ("2 + 3", TEXT, "stop")
    [plain] = samples.report()
    assert plain["tokens"] is None
    assert json.loads(json.dumps(row, allow_nan=False))


def test_prompt_of_token_ids_is_shown_as_text(tokenizer: Tokenizer) -> None:
    prompt = PromptRow(RowRef(0, 0), "a", prompt_token_ids=tokenizer.encode([TEXT])[0])
    samples, _ = sampled(prompt, "t")
    assert samples.report(tokenizer)[0]["prompt"].strip() == TEXT.strip()
    assert samples.report()[0]["prompt"] is None


@pytest.mark.parametrize("ids", [[3, None], [3, "x"], [3, -1]])
def test_prompt_of_other_values_than_token_ids_is_not_shown(
    ids: list[Any], tokenizer: Tokenizer
) -> None:
    prompt = PromptRow(RowRef(0, 0), "a", prompt_token_ids=ids)
    samples, _ = sampled(prompt)
    assert samples.report(tokenizer)[0]["prompt"] is None


def test_long_texts_are_cut_and_credentials_redacted(tokenizer: Tokenizer) -> None:
    secret = "s3://user:secret@bucket/x"
    ids = tokenizer.encode([secret * 20])[0] * 20
    samples, _ = sampled(
        PromptRow(RowRef(0, 0), secret, prompt="x" * 9000 + secret),
        secret + "y" * 9000,
        token_ids=token_ids(ids),
        token_logprobs=logprobs([-1.0] * len(ids)),
    )
    assert len(ids) > MAX_TOKENS
    [row] = samples.report(tokenizer)
    assert "secret" not in json.dumps(row)
    assert row["tokens"] is None
    assert len(row["prompt"]) <= MAX_CHARS + 1
    assert len(row["text"]) <= MAX_CHARS + 1


def test_scores_and_errors_are_shown() -> None:
    choices = PromptRow(RowRef(0, 0), "a", prompt="p", choices=[" yes", " no"])
    scores = (Score(-1.0, True, 1), Score(float("-inf"), False, 2))
    samples, _ = sampled(choices, scores=scores)
    [row] = samples.report()
    assert [score["text"] for score in row["scores"]] == [" yes", " no"]
    assert json.loads(json.dumps(row, allow_nan=False))

    failed, _ = sampled(choices, error_code="empty_prompt", error_message="prompt is empty")
    assert failed.report()[0]["error"] == "empty_prompt: prompt is empty"
