"""Values of documents → metrics of tasks and groups with standard errors, with the keys and numbers of lm-evaluation-harness."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evals.scoring import Sample
from pipeline.evals.suite import EvalRequest, Suite
from pipeline.evals.tasks import suite_of

# the standard error of a single document, and of a group that has such a task
NOT_AVAILABLE = "N/A"


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of a task or group; `stderr` is None where a single document gives none."""

    name: str
    metric: str
    value: float
    stderr: float | None
    documents: int
    is_group: bool
    headline: bool  # it was asked for by this name, and by no wider one

    @property
    def stderr_key(self) -> str:
        """The name of its standard error in results."""
        kind, _, chain = self.metric.partition(",")
        return f"{kind}_stderr,{chain}"


def scores(samples: Iterable[Sample], asked: Collection[str]) -> list[Score]:
    """Returns tasks first, then groups, suite by suite in the order of the samples.

    Args:
        samples: of all documents.
        asked: names of the tasks and groups that were asked for: groups are these and those within them.
    """
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        values[sample.task, sample.metric].append(sample.value)
    by_suite: dict[str, list[Score]] = defaultdict(list)
    suites: dict[str, Suite] = {}
    for (task, metric), each in values.items():
        suite = suites.setdefault(suite_of(task).name, suite_of(task))
        by_suite[suite.name].append(
            _of_task(task, metric, each, headline=_headline(suite, task, asked))
        )
    return [
        score
        for name, of_tasks in by_suite.items()
        for score in (*of_tasks, *_groups(suites[name], of_tasks, asked))
    ]


def _of_task(task: str, metric: str, values: Sequence[float], *, headline: bool) -> Score:
    mean = sum(values) / len(values)
    return Score(
        task, metric, mean, mean_stderr(values), len(values), is_group=False, headline=headline
    )


def mean_stderr(values: Sequence[float]) -> float | None:
    """Returns the standard error of the mean; None for a single value."""
    if len(values) == 1:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance) / math.sqrt(len(values))


def _headline(suite: Suite, name: str, asked: Collection[str]) -> bool:
    """Whether a task or group was asked for, and no group that it is a part of."""
    members = frozenset(suite.members(name))
    wider = (
        frozenset(suite.members(each)) for each in asked if each in suite.names and each != name
    )
    return name in asked and not any(members <= each for each in wider)


def _groups(suite: Suite, of_tasks: Sequence[Score], asked: Collection[str]) -> list[Score]:
    """Groups weigh every document alike: their mean is that of all documents, their variance is pooled from the tasks'."""
    found = []
    inside = [frozenset(suite.members(name)) for name in asked if name in suite.names]
    for group in (group for group in suite.groups if any(group.tasks <= tasks for tasks in inside)):
        for metric in dict.fromkeys(score.metric for score in of_tasks):
            members = [
                score for score in of_tasks if score.metric == metric and score.name in group.tasks
            ]
            if members:
                count = sum(score.documents for score in members)
                value = sum(score.documents * score.value for score in members) / count
                headline = _headline(suite, group.name, asked)
                found.append(
                    Score(
                        group.name,
                        metric,
                        value,
                        pooled_stderr(
                            [score.stderr for score in members],
                            [score.documents for score in members],
                        ),
                        count,
                        is_group=True,
                        headline=headline,
                    )
                )
    return found


def pooled_stderr(stderrs: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    """Returns the standard error of the mean over all documents of several tasks.

    None if one of theirs is.
    """
    squares = [
        (size - 1) * size * stderr**2
        for stderr, size in zip(stderrs, sizes, strict=True)
        if stderr is not None
    ]
    if len(squares) < len(stderrs):
        return None
    return math.sqrt(sum(squares) / (sum(sizes) - len(sizes)) / sum(sizes))


def results(
    all_scores: Iterable[Score], requests: Sequence[EvalRequest]
) -> dict[str, dict[str, object]]:
    """Returns what metrics.json has under `results`: every task that was asked, also one without values, and every group."""
    counts: dict[str, int] = defaultdict(int)
    for request in requests:
        counts[request.task] += 1
    table: dict[str, dict[str, object]] = {
        task: {"alias": suite_of(task).tasks[task], "sample_len": count}
        for task, count in counts.items()
    }
    for score in all_scores:
        if score.is_group:
            alias = next(
                group.alias for group in suite_of(score.name).groups if group.name == score.name
            )
            row = table.setdefault(
                score.name, {"alias": alias, "sample_len": score.documents, "sample_count": {}}
            )
            row["sample_count"] = {**_counts(row), score.metric: score.documents}
        table[score.name][score.metric] = score.value
        table[score.name][score.stderr_key] = (
            NOT_AVAILABLE if score.stderr is None else score.stderr
        )
    return table


def _counts(row: Mapping[str, object]) -> Mapping[str, object]:
    counted = row["sample_count"]
    return counted if isinstance(counted, dict) else {}
