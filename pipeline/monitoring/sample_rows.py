"""Keeps the first rows of a run, prompts with their results, for its report.

Both ends of the pipeline pass through: prompts where they are read, results where they are
finished. Nothing is read again, and the memory is that of a few rows.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

from actors.protocol.messages import Completion, Score
from actors.protocol.plain_text import VALUE_CHARS, bare, redact_credentials
from pipeline.records import OutputRow, Passing, PromptRow
from pipeline.requests.token_text import text_pieces, token_bytes
from pipeline.requests.tokenizer import Tokenizer

MAX_ROWS = 6
MAX_CHARS = 600  # of a prompt: its end; of a completion: its beginning
MAX_TOKENS = 200  # of a completion
MAX_CHOICES = 6


class SampleRows:
    """The first rows that are read, and what became of them."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        """Keeps at most `max_rows` rows."""
        self._max_rows = max_rows
        self._prompts: dict[tuple[int, int], PromptRow] = {}  # by shard and row
        self._results: dict[tuple[int, int], OutputRow] = {}

    def prompts(self, rows: Iterable[PromptRow | Passing]) -> Iterator[PromptRow | Passing]:
        """Yields all items; keeps the first rows."""
        for row in rows:
            if isinstance(row, PromptRow) and len(self._prompts) < self._max_rows:
                self._prompts[row.ref.shard, row.ref.row] = row
            yield row

    def results(self, rows: Iterable[OutputRow | Passing]) -> Iterator[OutputRow | Passing]:
        """Yields all items; keeps the first sample of each row that `prompts` has kept."""
        for row in rows:
            if len(self._results) < self._max_rows and isinstance(row, OutputRow):
                ref = row.completion.ref
                if not ref.sample and (ref.shard, ref.row) in self._prompts:
                    self._results[ref.shard, ref.row] = row
            yield row

    def report(self, tokenizer: Tokenizer | None = None) -> list[dict[str, Any]]:
        """Returns the finished rows as report.json has them, in the order of the input.

        Texts are bounded and without credentials.

        Args:
            tokenizer: of the run; without it, texts are not split into tokens.
        """
        reports = []
        for address, prompt in self._prompts.items():
            result = self._results.get(address)
            if result is not None:
                reports.append(_report(prompt, result, tokenizer))
        return reports


def _report(row: PromptRow, result: OutputRow, tokenizer: Tokenizer | None) -> dict[str, Any]:
    completion = result.completion
    error = None
    if completion.error_code is not None:
        error = f"{completion.error_code}: {bare(completion.error_message or '')}"
    row_id: str | int = row.id
    if isinstance(row_id, str):
        row_id = bare(row_id)
    return {
        "id": row_id,
        "prompt": _prompt(row, tokenizer),
        "text": _beginning(result.text),
        "tokens": _tokens(completion, tokenizer),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": len(completion.token_ids),
        "scores": _scores(row, completion),
        "error": error,
    }


def _prompt(row: PromptRow, tokenizer: Tokenizer | None) -> str | None:
    """Returns the end of the prompt, which the completion continues."""
    text = row.prompt
    if text is None and tokenizer is not None and _are_token_ids(row.prompt_token_ids):
        text = tokenizer.text(row.prompt_token_ids)
    if not isinstance(text, str):
        return None
    if len(text) > MAX_CHARS:
        text = f"…{text[-MAX_CHARS:]}"
    return redact_credentials(text)


def _are_token_ids(ids: object) -> "TypeGuard[list[int] | array[int]]":
    """Returns whether a cell has token ids: a row that cannot run may hold anything."""
    if not isinstance(ids, list | array):
        return False
    return all(isinstance(token, int) and token >= 0 for token in ids)


def _beginning(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]}…"
    return redact_credentials(text)


def _tokens(
    completion: Completion, tokenizer: Tokenizer | None
) -> list[tuple[str, float | None]] | None:
    """Returns the pieces of the completion with their log-probs.

    None without log-probs, and where the text has a credential, which pieces would show.
    """
    ids = completion.token_ids[:MAX_TOKENS]
    if tokenizer is None or not ids or completion.token_logprobs is None:
        return None
    pieces = []
    logprobs = completion.token_logprobs[:MAX_TOKENS]
    for piece, logprob in text_pieces(token_bytes(tokenizer, ids), logprobs):
        pieces.append((piece, _finite(logprob)))
    text = "".join(piece for piece, _ in pieces)
    if redact_credentials(text) != text:
        return None
    if len(completion.token_ids) > MAX_TOKENS:
        pieces.append(("…", None))
    return pieces


def _finite(logprob: float | None) -> float | None:
    """Returns a log-prob that JSON can hold: an impossible token has the lowest float32."""
    if logprob is None or math.isnan(logprob):
        return None
    return round(max(logprob, -3e38), 4)


def _scores(row: PromptRow, completion: Completion) -> list[dict[str, Any]]:
    texts: Sequence[object] = ()
    if isinstance(row.choices, list | tuple):
        texts = row.choices
    elif row.continuation is not None:
        texts = [row.continuation]

    reports = []
    for number, score in enumerate(completion.scores[:MAX_CHOICES]):
        text = None
        if number < len(texts):
            text = bare(texts[number], VALUE_CHARS)
        reports.append(_score_report(text, score))
    return reports


def _score_report(text: str | None, score: Score) -> dict[str, Any]:
    return {
        "text": text,
        "loglikelihood": _finite(score.loglikelihood),
        "tokens": score.tokens,
        "is_greedy": score.is_greedy,
    }
