"""The tokenize stage: `PromptRow` → `Request`, one per sample, in input order.

A row that cannot run becomes an error `Completion` here and stays in the same stream. The task
decides which texts of a row are encoded and which requests it becomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from actors.protocol.errors import InvalidPromptError, PromptTooLongError, RequestError
from actors.protocol.messages import Completion, Request, RowRef
from pipeline.records import Passing, PromptRow, ShardOpened
from pipeline.requests.row_digest import RowDigests
from pipeline.requests.rules import RequestRules
from pipeline.requests.text_tail import CHARS_PER_TOKEN, text_tail
from pipeline.requests.tokenizer import Tokenizer
from pipeline.requests.validation import check_text
from pipeline.tasks import Task

ROWS_PER_CALL = 256  # encoded by one call of the library, which spreads them over threads
CHARS_PER_CALL = 4_000_000  # the same: ids are Python integers until a row is complete


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
    context: bytes | None = None,
) -> Iterator[Request | Completion | Passing]:
    """Yields the requests of each row, or one error completion for a row that cannot run.

    Each `ShardOpened` receives the digests of its rows, if there is a context.

    Args:
        rows: in input order. All other items pass through at their place.
        task: of the run.
        tokenizer: None if every row has token ids.
        rules: of the run.
        context: stands in digests for what all rows of the run share; None: no digests.
    """
    digests: RowDigests | None = None
    if context is not None:
        digests = RowDigests(context)
    items: list[_PendingRow | Completion | Passing] = []
    chars = 0
    for row in rows:
        if not isinstance(row, PromptRow):
            items.append(row)
            continue
        pending = _pending_row(row, task, tokenizer, rules)
        items.append(pending)
        if isinstance(pending, _PendingRow):
            chars += sum(map(len, pending.texts))

        if len(items) >= ROWS_PER_CALL or chars >= CHARS_PER_CALL:
            yield from _encoded(items, task, tokenizer, rules, digests)
            items = []
            chars = 0
    yield from _encoded(items, task, tokenizer, rules, digests)


def _encoded(
    items: Sequence[_PendingRow | Completion | Passing],
    task: Task,
    tokenizer: Tokenizer | None,
    rules: RequestRules,
    digests: RowDigests | None,
) -> Iterator[Request | Completion | Passing]:
    """Encodes the texts of all rows by one call."""
    texts: list[str] = []
    for item in items:
        if isinstance(item, _PendingRow):
            texts += item.texts

    encoded: Iterator[list[int]] = iter(())
    if tokenizer is not None:
        encoded = iter(tokenizer.encode(texts))
    for item in items:
        if not isinstance(item, _PendingRow):
            if digests is not None and isinstance(item, ShardOpened):
                digests.open_shard(item)
            yield item
            continue
        requests = _requests(item, list(islice(encoded, len(item.texts))), task, rules)
        if digests is not None:
            requests = digests.recorded(requests)
        yield from requests


def _pending_row(
    row: PromptRow, task: Task, tokenizer: Tokenizer | None, rules: RequestRules
) -> _PendingRow | Completion:
    try:
        row = _bounded_row(row, task, tokenizer, rules)
        texts = task.texts(row)
        if texts and tokenizer is None:
            raise InvalidPromptError(
                "prompt: expected token ids, because the run has no tokenizer, got text; give "
                "--tokenizer"
            )
    except RequestError as error:
        return _failed(row, error)
    return _PendingRow(row, texts)


def _requests(
    pending: _PendingRow, encoded: Sequence[list[int]], task: Task, rules: RequestRules
) -> Iterable[Request | Completion]:
    try:
        return task.requests(pending.row, encoded, rules)
    except RequestError as error:
        return [_failed(pending.row, error)]


def _bounded_row(
    row: PromptRow, task: Task, tokenizer: Tokenizer | None, rules: RequestRules
) -> PromptRow:
    """Returns the row without what is never used of a huge prompt, before texts are joined.

    Raises:
        PromptTooLongError: a text of the row is too long by its beginning alone.
    """
    longest_chars = CHARS_PER_TOKEN * rules.max_len
    if tokenizer is None or rules.overflow == "window":
        return row
    for name, text in _continuations(row):
        if len(text) > longest_chars:
            _check_beginning(name, text, tokenizer, rules)

    prompt = row.prompt
    if not isinstance(prompt, str) or len(prompt) <= longest_chars:
        return row
    if rules.overflow == "error":
        overflow = "truncate-left"
        if task.splits_texts:
            overflow = "window"
        _check_beginning("prompt", prompt, tokenizer, rules, overflow)
        return row
    whole_prompt = check_text("prompt", prompt)
    return replace(row, prompt=text_tail(whole_prompt, tokenizer, rules.max_len))


def _continuations(row: PromptRow) -> Iterator[tuple[str, str]]:
    """Yields the texts that are scored after the prompt, each with the name of its column."""
    if isinstance(row.continuation, str):
        yield "continuation", row.continuation
    if isinstance(row.choices, list | tuple):
        for text in row.choices:
            if isinstance(text, str):
                yield "choices", text


def _check_beginning(
    name: str, text: str, tokenizer: Tokenizer, rules: RequestRules, overflow: str = ""
) -> None:
    """Rejects a huge text by its beginning alone; `overflow` is the cure of the message.

    For the beginning the limit is doubled, because the cut changes the last tokens.
    """
    beginning_chars = CHARS_PER_TOKEN * rules.max_len
    [beginning] = tokenizer.encode([text[:beginning_chars]])
    if len(beginning) <= 2 * rules.max_len:
        return
    cure = "raise --max-len"
    if overflow:
        cure += f" or use --on-overflow {overflow}"
    raise PromptTooLongError(
        f"{name}: expected at most --max-len {rules.max_len} tokens, got more than "
        f"{2 * rules.max_len} in {len(text)} characters; {cure}"
    )


def _failed(row: PromptRow, error: RequestError) -> Completion:
    ref = RowRef(row.ref.shard, row.ref.row)
    return Completion.failed(ref, error.code, str(error), row_id=row.id)
