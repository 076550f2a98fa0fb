"""The detokenize stage: `Completion` → `OutputRow`, as the task's columns read it."""

from collections.abc import Iterable, Iterator

from actors.protocol.messages import Completion
from pipeline.records import OutputRow, Passing
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import Task


def to_output_rows(
    completions: Iterable[Completion | Passing], task: Task, tokenizer: Tokenizer | None
) -> Iterator[OutputRow | Passing]:
    """Yields each completion as the task finishes it, with its text; other items pass through.

    The text is None for errors, for tasks that generate none, and without a tokenizer.
    """
    for completion in completions:
        if not isinstance(completion, Completion):
            yield completion
            continue

        text = None
        if tokenizer is not None and task.generates and completion.error_code is None:
            text = tokenizer.text(completion.token_ids, completion.text_bytes)
        yield OutputRow(task.row_completion(completion), text)
