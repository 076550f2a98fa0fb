"""Requests, answers and history → an `Evaluation`: everything that metrics.json, report.html and the exit code tell."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.evals.answers import Answers
from pipeline.evals.comparison import Difference, Rules, paired
from pipeline.evals.history import Entry, History
from pipeline.evals.metrics import Score, results, scores
from pipeline.evals.scoring import Sample, common_digest, document_digests, score
from pipeline.evals.suite import EvalRequest
from pipeline.evals.tasks import suite_of


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run is called and what it was made with."""

    run: str
    at: datetime
    name: str
    model: str | None = None
    checkpoint: str | None = None
    git_commit: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A document whose value by a metric differs from that in another run."""

    before: Sample
    now: Sample


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of this run beside that of an earlier one over the same documents."""

    now: Entry
    before: Entry
    against: str  # "last", "best", or "last and best"
    difference: Difference
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run, judged and compared."""

    info: RunInfo
    requests: tuple[EvalRequest, ...]
    answers: Answers
    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    entries: tuple[Entry, ...]  # one per score
    # of the same documents, oldest first, by task and metric
    earlier: Mapping[tuple[str, str], Sequence[Entry]]
    comparisons: tuple[Comparison, ...]

    @property
    def headlines(self) -> tuple[Entry, ...]:
        """What the run is judged by: the tasks and groups that were asked for, without those inside others of them."""
        return tuple(
            entry for entry, score in zip(self.entries, self.scores, strict=True) if score.headline
        )

    @property
    def regressions(self) -> tuple[Comparison, ...]:
        """Comparisons that fail the run."""
        return tuple(each for each in self.comparisons if each.difference.regression)

    @property
    def failed(self) -> int:
        """Requests whose output is an error."""
        return sum(
            any(answer.error is not None for answer in answers) for answers in self.answers.values()
        )

    def metrics(self) -> dict[str, object]:
        """Returns the content of metrics.json."""
        return {
            "results": results(self.scores, self.requests),
            "failed": self.failed,
            "run": self.info.run,
            "comparisons": [_told(comparison) for comparison in self.comparisons],
        }


def evaluate(
    requests: Sequence[EvalRequest],
    asked: Collection[str],
    answers: Answers,
    info: RunInfo,
    history: History,
    rules: Rules,
) -> Evaluation:
    """Judges answers and compares them with the last and the best run over the same documents.

    Args:
        requests: what was asked.
        asked: names of the tasks and groups that it was asked for.
        answers: to every request.
        info: of this run.
        history: earlier runs.
        rules: when a difference is a regression.

    Raises:
        DatasetError: an answer does not fit its request, or history lacks what it should have.
    """
    samples = score(requests, answers)
    found = scores(samples, asked)
    digests = document_digests(requests)
    entries = [_entry(each, requests, answers, digests, info) for each in found]
    earlier = {(entry.task, entry.metric): history.before(entry) for entry in entries}
    judged = [entry for entry, each in zip(entries, found, strict=True) if each.headline]
    comparisons = _compare(judged, earlier, samples, history, rules)
    return Evaluation(
        info,
        tuple(requests),
        answers,
        tuple(samples),
        tuple(found),
        tuple(entries),
        earlier,
        tuple(comparisons),
    )


def _entry(
    score: Score,
    requests: Iterable[EvalRequest],
    answers: Answers,
    digests: Mapping[str, str],
    info: RunInfo,
) -> Entry:
    tasks = frozenset(suite_of(score.name).members(score.name))
    ids = [request.id for request in requests if request.task in tasks]
    return Entry(
        run=info.run, at=info.at, name=info.name, model=info.model, checkpoint=info.checkpoint, git_commit=info.git_commit,
        task=score.name, metric=score.metric, value=score.value, stderr=score.stderr, count=score.documents,
        failed=sum(any(answer.error is not None for answer in answers[name]) for name in ids),
        documents=common_digest(digests[name] for name in ids),
    )  # fmt: skip


def _compare(
    entries: Iterable[Entry],
    earlier: Mapping[tuple[str, str], Sequence[Entry]],
    samples: Sequence[Sample],
    history: History,
    rules: Rules,
) -> list[Comparison]:
    found: list[Comparison] = []
    loaded: dict[str, list[Sample]] = {}
    for entry in entries:
        before = earlier[entry.task, entry.metric]
        if not before:
            continue
        last, best = before[-1], max(before, key=lambda each: (each.value, each.at))
        pairs = [("last and best", last)] if last is best else [("last", last), ("best", best)]
        for against, other in pairs:
            if other.run not in loaded:
                loaded[other.run] = history.samples(other.run)
            found.append(_comparison(entry, other, against, loaded[other.run], samples, rules))
    return found


def _comparison(
    entry: Entry,
    other: Entry,
    against: str,
    before: Iterable[Sample],
    now: Iterable[Sample],
    rules: Rules,
) -> Comparison:
    mine, theirs = _by_id(now, entry), _by_id(before, entry)
    difference = paired(
        {name: sample.value for name, sample in theirs.items()},
        {name: sample.value for name, sample in mine.items()},
        rules,
    )
    changes = tuple(
        Change(theirs[name], mine[name]) for name in mine if mine[name].value != theirs[name].value
    )
    return Comparison(entry, other, against, difference, changes)


def _by_id(samples: Iterable[Sample], entry: Entry) -> dict[str, Sample]:
    tasks = frozenset(suite_of(entry.task).members(entry.task))
    return {
        sample.id: sample
        for sample in samples
        if sample.metric == entry.metric and sample.task in tasks
    }


def _told(comparison: Comparison) -> dict[str, object]:
    difference = comparison.difference
    return {
        "task": comparison.now.task, "metric": comparison.now.metric, "against": comparison.against,
        "run": comparison.before.run, "name": comparison.before.name, "before": comparison.before.value,
        "now": comparison.now.value, "difference": difference.value, "interval": [difference.low, difference.high],
        "p_value": difference.p_value, "better": difference.better, "worse": difference.worse,
        "documents": difference.documents, "regression": difference.regression,
    }  # fmt: skip
