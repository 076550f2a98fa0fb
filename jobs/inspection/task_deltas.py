"""Differences of two evaluations by task, over the documents that both have.

Reads the samples.parquet of both folders: values are paired by document.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import storage
from pipeline.evals import scoring
from pipeline.evals.comparison import Difference, Rules, paired
from pipeline.evals.evaluation import REQUESTS, SAMPLES
from pipeline.evals.requests import read_requests
from pipeline.evals.scoring import Sample
from pipeline.evals.suite import EvalRequest
from pipeline.input import formats

ALL_TASKS = "all tasks"
LISTED_DOCUMENTS = 20  # of each task and metric
Key = tuple[str, str]  # task and metric


@dataclass(frozen=True, slots=True)
class ChangedDocument:
    """A document whose value or answer differs."""

    id: str
    a: Sample
    b: Sample


@dataclass(frozen=True, slots=True)
class TaskDelta:
    """A metric of a task in both evaluations.

    Attributes:
        task: name of the task, or `ALL_TASKS`.
        metric: name of the metric.
        value_a: mean of the first evaluation over the common documents.
        value_b: mean of the second one.
        difference: second less first, paired by document, with its 95 % interval.
        only_a: number of documents that only the first has.
        only_b: number of documents that only the second has.
        changed_answers: documents with another answer, whether its value changed or not.
        changes: the first documents whose value changed; none for `ALL_TASKS`.
    """

    task: str
    metric: str
    value_a: float
    value_b: float
    difference: Difference
    only_a: int
    only_b: int
    changed_answers: int
    changes: tuple[ChangedDocument, ...]


def is_evaluation(url: str) -> bool:
    """Returns whether a folder is that of an evaluation with its report."""
    return storage.stat(storage.join(url, SAMPLES)) is not None


def task_deltas(url_a: str, url_b: str) -> list[TaskDelta]:
    """Returns the differences of all tasks and metrics that both evaluations have.

    A metric of several tasks has a sum over all of their documents, which comes first.

    Raises:
        DatasetError: samples of an evaluation cannot be read.
    """
    samples_a = _by_key(_read(url_a))
    samples_b = _by_key(_read(url_b))
    deltas = []
    for key in samples_a:
        if key in samples_b:
            delta = _delta(*key, samples_a[key], samples_b[key])
            if delta is not None:
                deltas.append(delta)
    return deltas


def read_eval_requests(url: str) -> dict[str, EvalRequest]:
    """Returns the requests of an evaluation by id; none where the folder does not hold them.

    Raises:
        DatasetError: they cannot be read.
    """
    requests_url = storage.join(url, REQUESTS)
    if storage.stat(requests_url) is None:
        return {}
    return {request.id: request for request in read_requests(requests_url)}


def delta_as_json(delta: TaskDelta) -> dict[str, Any]:
    """Returns the figures of a task."""
    difference = delta.difference
    return {
        "task": delta.task,
        "metric": delta.metric,
        "a": delta.value_a,
        "b": delta.value_b,
        "difference": difference.value,
        "interval_95": [difference.low, difference.high],
        "p_value": difference.p_value,
        "certain": difference.certain,
        "documents": difference.documents,
        "better": difference.better,
        "worse": difference.worse,
        "only_a": delta.only_a,
        "only_b": delta.only_b,
        "changed_answers": delta.changed_answers,
        "changes": [asdict(change) for change in delta.changes],
    }


def _read(url: str) -> list[Sample]:
    with formats.open_parquet(storage.join(url, SAMPLES)) as parquet:
        return scoring.from_table(parquet.read())


def _by_key(samples: list[Sample]) -> dict[Key, dict[str, Sample]]:
    """Returns the samples of each task and metric by id; those of all tasks first."""
    by_key: dict[Key, dict[str, Sample]] = defaultdict(dict)
    sums: dict[Key, dict[str, Sample]] = defaultdict(dict)
    tasks_of_metric: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        by_key[sample.task, sample.metric][sample.id] = sample
        sums[ALL_TASKS, sample.metric][sample.id] = sample
        tasks_of_metric[sample.metric].add(sample.task)
    for metric, tasks in tasks_of_metric.items():
        if len(tasks) == 1:
            del sums[ALL_TASKS, metric]
    return {**sums, **by_key}


def _delta(task: str, metric: str, a: dict[str, Sample], b: dict[str, Sample]) -> TaskDelta | None:
    common = [sample_id for sample_id in a if sample_id in b]
    if not common:
        return None
    values_a = {sample_id: a[sample_id].value for sample_id in common}
    values_b = {sample_id: b[sample_id].value for sample_id in common}
    changed_answers = 0
    changes: list[ChangedDocument] = []
    for sample_id in common:
        changed_answers += a[sample_id].answer != b[sample_id].answer
        is_listed = task != ALL_TASKS and len(changes) < LISTED_DOCUMENTS
        if is_listed and values_a[sample_id] != values_b[sample_id]:
            changes.append(ChangedDocument(sample_id, a[sample_id], b[sample_id]))
    return TaskDelta(
        task=task,
        metric=metric,
        value_a=sum(values_a.values()) / len(common),
        value_b=sum(values_b.values()) / len(common),
        difference=paired(values_a, values_b, Rules(margin=0.0, confidence=0.95)),
        only_a=len(a) - len(common),
        only_b=len(b) - len(common),
        changed_answers=changed_answers,
        changes=tuple(changes),
    )
