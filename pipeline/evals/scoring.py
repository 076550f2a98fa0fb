"""Values of documents by each metric, as rows that history stores and the report compares."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import pyarrow as pa

from pipeline.evals import tables
from pipeline.evals.answers import Answers
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
MAX_ANSWER_CHARS = 400  # of an answer


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
    """Returns the answers, those of suites with a `program` with `passed` from its execution."""
    keys: list[tuple[str, int]] = []  # request and index of the sample
    programs: list[str] = []
    for request in requests:
        program_of = suite_of(request.task).program
        if program_of is None:
            continue
        for index, answer in enumerate(answers[request.id]):
            if answer.error is None:
                keys.append((request.id, index))
                programs.append(program_of(request, answer.text))

    with_results = dict(answers)
    for (request_id, index), passed in zip(keys, execute(programs), strict=True):
        samples = list(with_results[request_id])
        samples[index] = replace(samples[index], passed=passed)
        with_results[request_id] = tuple(samples)
    return with_results


def score(requests: Iterable[EvalRequest], answers: Answers) -> list[Sample]:
    """Returns a row per document and metric, in the order of the requests.

    Raises:
        DatasetError: an answer does not fit its request.
    """
    samples: list[Sample] = []
    for request in requests:
        samples += _samples(request, answers[request.id])
    return samples


def _samples(request: EvalRequest, answers: Sequence[Answer]) -> list[Sample]:
    verdict = suite_of(request.task).score(request, answers)
    answer = verdict.answer[:MAX_ANSWER_CHARS]
    samples = []
    for metric, value in verdict.values.items():
        sample = Sample(
            id=request.id,
            task=request.task,
            metric=metric,
            value=value,
            answer=answer,
            confidence=verdict.confidence,
        )
        samples.append(sample)
    return samples


def document_digests(requests: Iterable[EvalRequest]) -> dict[str, str]:
    """Returns a digest of all fields of each request, by id."""
    digests = {}
    for request in requests:
        digests[request.id] = _digest(json.dumps(astuple(request)))
    return digests


def common_digest(digests: Iterable[str]) -> str:
    """Returns one digest of many, in any order."""
    return _digest("\n".join(sorted(digests)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def to_table(samples: Sequence[Sample]) -> pa.Table:
    """Returns the rows as a table of `SCHEMA`."""
    return tables.to_table(samples, SCHEMA)


def from_table(table: pa.Table) -> list[Sample]:
    """Returns the rows of a table of `SCHEMA`."""
    return [Sample(**row) for row in table.select(SCHEMA.names).to_pylist()]
