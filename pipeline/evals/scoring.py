"""Requests and answers → what each document is worth by each metric, as rows that history keeps and the report compares."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import pyarrow as pa

from pipeline.evals.answers import Answers
from pipeline.evals.multiple_choice import confidence
from pipeline.evals.suite import Answer, EvalRequest
from pipeline.evals.tasks import suite_of

# Python programs → whether each ran to its end
Executor = Callable[[Sequence[str]], Sequence[bool]]
FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.string()),
    ("task", pa.string()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("answer", pa.string()),
    ("confidence", pa.float64()),
)
SCHEMA = pa.schema(FIELDS)
DIGEST_BYTES = 12
SHOWN_CHARS = 400  # of an answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One document's value by one metric."""

    id: str
    task: str
    metric: str
    value: float
    answer: str  # what was taken as the answer, shortened
    confidence: float | None  # probability of the chosen one among the choices


def executed(requests: Iterable[EvalRequest], answers: Answers, execute: Executor) -> Answers:
    """Returns the answers with `passed` filled in where a task's metric is whether a program runs."""
    places: list[tuple[str, int]] = []
    programs: list[str] = []
    for request in requests:
        program = suite_of(request.task).program
        for index, answer in enumerate(answers[request.id]):
            if program is not None and answer.error is None:
                places.append((request.id, index))
                programs.append(program(request, answer.text))
    judged = {name: list(samples) for name, samples in answers.items()}
    for (name, index), passed in zip(places, execute(programs), strict=True):
        judged[name][index] = replace(judged[name][index], passed=passed)
    return {name: tuple(samples) for name, samples in judged.items()}


def score(requests: Iterable[EvalRequest], answers: Answers) -> list[Sample]:
    """Returns a row per document and metric, in the order of the requests.

    Raises:
        DatasetError: an answer does not fit its request.
    """
    return [sample for request in requests for sample in _samples(request, answers[request.id])]


def _samples(request: EvalRequest, answers: Sequence[Answer]) -> list[Sample]:
    verdict = suite_of(request.task).score(request, answers)
    sure = confidence(answers[0])
    return [
        Sample(request.id, request.task, metric, value, verdict.answer[:SHOWN_CHARS], sure)
        for metric, value in verdict.values.items()
    ]


def document_digests(requests: Iterable[EvalRequest]) -> dict[str, str]:
    """Returns a digest of each request by its id: equal digests are the same document, asked in the same way."""
    names = [field.name for field in fields(EvalRequest)]
    return {
        request.id: _digest(json.dumps([getattr(request, name) for name in names]))
        for request in requests
    }


def common_digest(digests: Iterable[str]) -> str:
    """Returns one digest of many, in any order."""
    return _digest("\n".join(sorted(digests)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """Returns the rows as a table of `SCHEMA`."""
    columns = {
        name: pa.array([getattr(sample, name) for sample in samples], SCHEMA.field(name).type)
        for name in SCHEMA.names
    }
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Sample]:
    """Returns the rows of a table of `SCHEMA`."""
    return [Sample(**row) for row in table.select(SCHEMA.names).to_pylist()]
