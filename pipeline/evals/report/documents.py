"""Documents that the page shows: right and wrong examples, and those that changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from actors.protocol.plain_text import shorten
from pipeline.evals.evaluation import Change, Comparison, Evaluation
from pipeline.evals.history import Entry
from pipeline.evals.scoring import Sample
from pipeline.evals.suite import EvalRequest
from pipeline.evals.tasks import suite_of

MAX_EXAMPLES = 3  # right ones and wrong ones of each metric
MAX_CHANGES = 25  # of each metric in each direction
PROMPT_END_CHARS = 400
MIN_QUESTION_CHARS = 20  # of a paragraph that is taken for a question
ANSWER_CHARS = 400

Requests = Mapping[str, EvalRequest]  # by id


@dataclass(frozen=True, slots=True)
class Example:
    """A document with the answer of the model."""

    id: str
    prompt: str  # its end
    target: str
    answer: str  # that was extracted
    text: str  # of the completion; empty where choices are scored, or a row failed
    probability: float | None  # of the chosen one among the choices


@dataclass(frozen=True, slots=True)
class Examples:
    """Right and wrong documents of one metric."""

    metric: str
    summary: str
    right: tuple[Example, ...]
    wrong: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class ChangedDocument:
    """A document whose value changed, with both answers."""

    id: str
    prompt: str  # its end
    target: str
    before: Sample
    now: Sample


@dataclass(frozen=True, slots=True)
class ChangedDocuments:
    """Documents whose value changed in one direction."""

    summary: str
    documents: tuple[ChangedDocument, ...]


def examples_of(evaluation: Evaluation, entry: Entry, name: str) -> Examples:
    """Returns right and wrong documents of a metric.

    Of scored choices the wrong ones of the largest probability come first: the mistakes of which
    the model is most certain. Otherwise the documents are in their order.

    Args:
        evaluation: the run.
        entry: the metric.
        name: of the metric.
    """
    tasks = frozenset(suite_of(entry.task).members(entry.task))
    right = []
    wrong = []
    for sample in evaluation.samples:
        if sample.metric != entry.metric or sample.task not in tasks:
            continue
        if sample.value >= 1:
            right.append(sample)
        else:
            wrong.append(sample)

    wrong.sort(key=lambda sample: -(sample.confidence or 0.0))
    requests = {request.id: request for request in evaluation.requests}
    return Examples(
        metric=name,
        summary=f"{name}: {len(right):,} right, {len(wrong):,} wrong",
        right=_examples(right, evaluation, requests),
        wrong=_examples(wrong, evaluation, requests),
    )


def _examples(
    samples: Sequence[Sample], evaluation: Evaluation, requests: Requests
) -> tuple[Example, ...]:
    examples = []
    for sample in samples[:MAX_EXAMPLES]:
        request = requests[sample.id]
        answer = evaluation.answers[sample.id][0]
        text = answer.text
        if answer.error is not None:
            text = f"failed: {answer.error}"
        example = Example(
            id=sample.id,
            prompt=prompt_end(request.prompt),
            target=request.target,
            answer=sample.answer,
            text=shorten(text, ANSWER_CHARS),
            probability=sample.confidence,
        )
        examples.append(example)
    return tuple(examples)


def changed_documents(comparison: Comparison, requests: Requests) -> Iterator[ChangedDocuments]:
    """Yields the documents that became worse, then those that became better."""
    worse = []
    better = []
    for change in comparison.changes:
        if change.now.value < change.before.value:
            worse.append(change)
        elif change.now.value > change.before.value:
            better.append(change)

    for direction, changes in (("worse", worse), ("better", better)):
        if changes:
            yield _changed(direction, changes, requests)


def _changed(direction: str, changes: Sequence[Change], requests: Requests) -> ChangedDocuments:
    summary = f"{len(changes):,} {direction}"
    if len(changes) > MAX_CHANGES:
        summary = f"{summary}, the first {MAX_CHANGES}"
    documents = []
    for change in changes[:MAX_CHANGES]:
        request = requests[change.now.id]
        document = ChangedDocument(
            id=request.id,
            prompt=prompt_end(request.prompt),
            target=request.target,
            before=change.before,
            now=change.now,
        )
        documents.append(document)
    return ChangedDocuments(summary, tuple(documents))


def prompt_end(prompt: str) -> str:
    """Returns the end of a prompt: its last paragraph, which is the question after examples."""
    end = prompt[-PROMPT_END_CHARS:]
    before, _, last_paragraph = end.rpartition("\n\n")
    if before and len(last_paragraph) >= MIN_QUESTION_CHARS:
        return f"…{last_paragraph}"
    if len(prompt) > PROMPT_END_CHARS:
        return f"…{end}"
    return end
