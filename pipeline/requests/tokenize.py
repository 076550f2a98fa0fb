"""The tokenize stage: `PromptRow` → `Request`, one per sample, in input order.

A row that cannot run becomes an error `Completion` here and stays in the same stream. The task
decides which texts of a row are encoded and which requests it becomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from actors.protocol.errors import InvalidPromptError, PromptTooLongError, RequestError
from actors.protocol.messages import Completion, Request, RowRef
from pipeline.records import Passing, PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import Task

ROWS_PER_CALL = 256  # encoded by one call of the library, which spreads them over threads
# A text with more characters per allowed token than this is measured by its beginning first.
CHARS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class _PendingRow:
    """A row whose texts are not encoded yet."""

    row: PromptRow
    texts: tuple[str, ...]


def to_requests(
    rows: Iterable[PromptRow | Passing],
    task: Task,
    tokenizer: Tokenizer | None,
    rules: RequestRules,
) -> Iterator[Request | Completion | Passing]:
    """Yields the requests of each row, or one error completion for a row that cannot run.

    Args:
        rows: in input order. All other items pass through at their place.
        task: of the run.
        tokenizer: None if every row has token ids.
        rules: of the run.
    """
    source = iter(rows)
    while chunk := list(islice(source, ROWS_PER_CALL)):
        yield from _chunk_requests(chunk, task, tokenizer, rules)


def _chunk_requests(
    chunk: Sequence[PromptRow | Passing],
    task: Task,
    tokenizer: Tokenizer | None,
    rules: RequestRules,
) -> Iterator[Request | Completion | Passing]:
    """Encodes the texts of all rows of the chunk by one call."""
    items: list[_PendingRow | Completion | Passing] = []
    texts: list[str] = []
    for row in chunk:
        if not isinstance(row, PromptRow):
            items.append(row)
            continue
        pending = _pending_row(row, task, tokenizer, rules)
        if isinstance(pending, _PendingRow):
            texts += pending.texts
        items.append(pending)

    encoded: Iterator[list[int]] = iter(())
    if tokenizer is not None:
        encoded = iter(tokenizer.encode(texts))
    for item in items:
        if isinstance(item, _PendingRow):
            yield from _requests(item, list(islice(encoded, len(item.texts))), task, rules)
        else:
            yield item


def _pending_row(
    row: PromptRow, task: Task, tokenizer: Tokenizer | None, rules: RequestRules
) -> _PendingRow | Completion:
    try:
        texts = task.texts(row)
        for text in texts:
            _check_encodable(text, tokenizer, rules)
    except RequestError as error:
        return _failed(row, error)
    return _PendingRow(row, texts)


def _requests(
    pending: _PendingRow, encoded: Sequence[list[int]], task: Task, rules: RequestRules
) -> Sequence[Request | Completion]:
    try:
        return task.requests(pending.row, encoded, rules)
    except RequestError as error:
        return [_failed(pending.row, error)]


def _check_encodable(text: str, tokenizer: Tokenizer | None, rules: RequestRules) -> None:
    """Rejects a text without a tokenizer, and a huge text by its beginning alone.

    For the beginning the limit is doubled, because the cut changes the last tokens.
    """
    if tokenizer is None:
        raise InvalidPromptError(
            "prompt: expected token ids, because the run has no tokenizer, got text; give "
            "--tokenizer"
        )
    beginning_chars = CHARS_PER_TOKEN * rules.max_len
    if rules.overflow != "error" or len(text) <= beginning_chars:
        return

    [beginning] = tokenizer.encode([text[:beginning_chars]])
    if len(beginning) > 2 * rules.max_len:
        raise PromptTooLongError(
            f"prompt: expected at most --max-len {rules.max_len} tokens, got more than "
            f"{2 * rules.max_len} in {len(text)} characters; raise --max-len or use --on-overflow "
            "truncate-left"
        )


def _failed(row: PromptRow, error: RequestError) -> Completion:
    ref = RowRef(row.ref.shard, row.ref.row)
    return Completion.failed(ref, error.code, str(error), row_id=row.id)
