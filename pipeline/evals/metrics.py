"""Metrics of tasks and groups with standard errors, as lm-evaluation-harness writes them."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pipeline.evals.scoring import Sample
from pipeline.evals.suite import EvalRequest, Group, Suite
from pipeline.evals.tasks import suite_of

# standard error of a single document, and of a group with such a task
NOT_AVAILABLE = "N/A"


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of a task or group; `stderr` is None for a single document."""

    name: str
    metric: str
    value: float
    stderr: float | None
    documents: int
    is_group: bool
    headline: bool  # requested by this name, and not within another requested group

    @property
    def stderr_key(self) -> str:
        """Name of the standard error in results."""
        metric, _, filter_name = self.metric.partition(",")
        return f"{metric}_stderr,{filter_name}"


def scores(samples: Iterable[Sample], requested: Collection[str]) -> list[Score]:
    """Returns the scores of tasks, then of groups, suite by suite in the order of the samples.

    Args:
        samples: samples of all documents.
        requested: names of the requested tasks and groups; groups are these and those within them.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        values[sample.task, sample.metric].append(sample.value)

    suites: dict[str, Suite] = {}
    task_scores: dict[str, list[Score]] = defaultdict(list)
    for (task, metric), task_values in values.items():
        suite = suite_of(task)
        suites[suite.name] = suite
        score = Score(
            name=task,
            metric=metric,
            value=sum(task_values) / len(task_values),
            stderr=mean_stderr(task_values),
            documents=len(task_values),
            is_group=False,
            headline=_is_headline(suite, task, requested),
        )
        task_scores[suite.name].append(score)

    all_scores: list[Score] = []
    for name, suite in suites.items():
        all_scores += task_scores[name]
        all_scores += _group_scores(suite, task_scores[name], requested)
    return all_scores


def mean_stderr(values: Sequence[float]) -> float | None:
    """Returns the standard error of the mean; None for a single value."""
    count = len(values)
    if count == 1:
        return None
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return math.sqrt(variance) / math.sqrt(count)


def pooled_stderr(stderrs: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    """Returns the standard error of the mean over all documents of several tasks.

    The variance is pooled from those of the tasks, as in lm-evaluation-harness.

    Args:
        stderrs: standard error of each task; None makes the result None.
        sizes: documents of each task.
    """
    squares = 0.0
    for stderr, size in zip(stderrs, sizes, strict=True):
        if stderr is None:
            return None
        squares += (size - 1) * size * stderr**2
    documents = sum(sizes)
    pooled_variance = squares / (documents - len(sizes))
    return math.sqrt(pooled_variance / documents)


def results(
    all_scores: Iterable[Score], requests: Sequence[EvalRequest]
) -> dict[str, dict[str, object]]:
    """Returns `results` of metrics.json: every requested task and every group."""
    counts: dict[str, int] = defaultdict(int)
    for request in requests:
        counts[request.task] += 1

    table: dict[str, dict[str, object]] = {}
    for task, count in counts.items():
        table[task] = {"alias": suite_of(task).tasks[task], "sample_len": count}
    sample_counts: dict[str, dict[str, int]] = defaultdict(dict)
    for score in all_scores:
        if score.is_group:
            sample_counts[score.name][score.metric] = score.documents
            if score.name not in table:
                table[score.name] = {
                    "alias": _group_alias(score.name),
                    "sample_len": score.documents,
                    "sample_count": sample_counts[score.name],
                }
        row = table[score.name]
        row[score.metric] = score.value
        row[score.stderr_key] = NOT_AVAILABLE if score.stderr is None else score.stderr
    return table


def _is_headline(suite: Suite, name: str, requested: Collection[str]) -> bool:
    """Returns whether a task or group was requested, and no group that contains it."""
    if name not in requested:
        return False
    members = frozenset(suite.members(name))
    for group in requested:
        if group != name and group in suite.names and members <= frozenset(suite.members(group)):
            return False
    return True


def _group_scores(
    suite: Suite, task_scores: Sequence[Score], requested: Collection[str]
) -> list[Score]:
    """Returns the scores of the groups within what was requested.

    Every document has the same weight: the mean of a group is that of all its documents.
    """
    group_scores = []
    for group in suite.groups:
        if not _is_within_requested(suite, group, requested):
            continue
        headline = _is_headline(suite, group.name, requested)
        for members in _members_by_metric(group, task_scores).values():
            if members:
                group_score = _group_score(group.name, members, headline=headline)
                group_scores.append(group_score)
    return group_scores


def _is_within_requested(suite: Suite, group: Group, requested: Collection[str]) -> bool:
    """Returns whether a requested task or group contains all tasks of `group`."""
    for name in requested:
        if name in suite.names and group.tasks <= frozenset(suite.members(name)):
            return True
    return False


def _members_by_metric(group: Group, task_scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Returns the scores of a group's tasks by metric, the metrics in the order of the suite."""
    by_metric: dict[str, list[Score]] = {}
    for score in task_scores:
        members = by_metric.setdefault(score.metric, [])
        if score.name in group.tasks:
            members.append(score)
    return by_metric


def _group_score(name: str, members: Sequence[Score], *, headline: bool) -> Score:
    sizes = [score.documents for score in members]
    documents = sum(sizes)
    total = sum(score.documents * score.value for score in members)
    stderr = pooled_stderr([score.stderr for score in members], sizes)
    return Score(
        name=name,
        metric=members[0].metric,
        value=total / documents,
        stderr=stderr,
        documents=documents,
        is_group=True,
        headline=headline,
    )


def _group_alias(name: str) -> str:
    aliases = {group.name: group.alias for group in suite_of(name).groups}
    return aliases[name]
