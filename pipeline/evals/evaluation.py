"""The evaluation of a run: scores of its answers, and comparisons with earlier runs.

metrics.json, report.html and the exit code are made of an `Evaluation`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.evals.answers import MISSING, Answers, has_failed
from pipeline.evals.comparison import Difference, Rules, judged_together, paired
from pipeline.evals.history import Entry, History
from pipeline.evals.metrics import Score, results, scores
from pipeline.evals.multiple_choice import ACCURACY
from pipeline.evals.scoring import Sample, common_digest, document_digests, score
from pipeline.evals.suite import EvalRequest
from pipeline.evals.tasks import suite_of

# files in the folder of an evaluation
REQUESTS = "requests.parquet"
SAMPLES = "samples.parquet"
METRICS = "metrics.json"
SUMMARY = "summary.md"
JUNIT = "junit.xml"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Name and origin of a run."""

    run: str  # identity, from history.py
    reported_at: datetime  # for the first time, UTC
    name: str  # given by the user
    model: str | None = None
    checkpoint: str | None = None
    git_commit: str | None = None
    setup: str | None = None  # digest of all that the answers depend on but the documents


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

    @property
    def is_same_setup(self) -> bool:
        """Whether model, settings and code of both runs are the same: changes are noise."""
        return self.now.setup is not None and self.now.setup == self.before.setup


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
        """Entries of the requested tasks and groups, without those inside other requested ones."""
        return _headlines(self.entries, self.scores)

    @property
    def regressions(self) -> tuple[Comparison, ...]:
        """Comparisons that fail the run."""
        return tuple(filter(_is_regression, self.comparisons))

    @property
    def failed(self) -> int:
        """Number of requests whose output is an error."""
        return sum(map(has_failed, self.answers.values()))

    @property
    def missing(self) -> int:
        """Number of requests without an output row; they are part of `failed`."""
        return sum(answers == (MISSING,) for answers in self.answers.values())

    def chance(self, entry: Entry) -> float | None:
        """Returns the accuracy of random choices; None for a metric that is not of choices."""
        if entry.metric != ACCURACY:
            return None
        tasks = frozenset(suite_of(entry.task).members(entry.task))
        total = 0.0
        documents = 0
        for request in self.requests:
            if request.task in tasks and request.choices:
                candidates = len(request.choices) // suite_of(request.task).choices_per_candidate
                total += 1 / candidates
                documents += 1
        if not documents:
            return None
        return total / documents

    def metrics(self) -> dict[str, object]:
        """Returns the content of metrics.json; only an incomplete run has the key `missing`."""
        metrics: dict[str, object] = {
            "results": results(self.scores, self.requests),
            "failed": self.failed,
            "run": self.info.run,
            "comparisons": list(map(_comparison_metrics, self.comparisons)),
        }
        if self.missing:
            metrics["missing"] = self.missing
        return metrics


def evaluate(
    requests: Sequence[EvalRequest],
    requested: Collection[str],
    answers: Answers,
    info: RunInfo,
    history: History,
    rules: Rules,
) -> Evaluation:
    """Judges answers and compares them with the last and the best run over the same documents.

    Args:
        requests: all requests of the run.
        requested: names of the requested tasks and groups.
        answers: to every request.
        info: of this run.
        history: earlier runs.
        rules: for calling a difference a regression.

    Raises:
        DatasetError: an answer does not fit its request, or history lacks what it should have.
    """
    samples = score(requests, answers)
    all_scores = scores(samples, requested)
    digests = document_digests(requests)

    entries: list[Entry] = []
    earlier: dict[tuple[str, str], Sequence[Entry]] = {}
    for entry_score in all_scores:
        entry = _entry(entry_score, requests, answers, digests, info)
        entries.append(entry)
        earlier[entry.task, entry.metric] = history.before(entry)

    headlines = _headlines(entries, all_scores)
    comparisons = _compare(headlines, earlier, samples, history, rules)
    return Evaluation(
        info=info,
        requests=tuple(requests),
        answers=answers,
        samples=tuple(samples),
        scores=tuple(all_scores),
        entries=tuple(entries),
        earlier=earlier,
        comparisons=tuple(comparisons),
    )


def _headlines(entries: Iterable[Entry], all_scores: Iterable[Score]) -> tuple[Entry, ...]:
    headlines = []
    for entry, entry_score in zip(entries, all_scores, strict=True):
        if entry_score.headline:
            headlines.append(entry)
    return tuple(headlines)


def _is_regression(comparison: Comparison) -> bool:
    return comparison.difference.regression


def _entry(
    score: Score,
    requests: Iterable[EvalRequest],
    answers: Answers,
    digests: Mapping[str, str],
    info: RunInfo,
) -> Entry:
    tasks = frozenset(suite_of(score.name).members(score.name))
    failed = 0
    task_digests: list[str] = []
    for request in requests:
        if request.task in tasks:
            failed += has_failed(answers[request.id])
            task_digests.append(digests[request.id])

    return Entry(
        run=info.run,
        at=info.reported_at,
        name=info.name,
        model=info.model,
        checkpoint=info.checkpoint,
        git_commit=info.git_commit,
        setup=info.setup,
        task=score.name,
        metric=score.metric,
        value=score.value,
        stderr=score.stderr,
        count=score.documents,
        failed=failed,
        documents=common_digest(task_digests),
    )


def _compare(
    entries: Iterable[Entry],
    earlier: Mapping[tuple[str, str], Sequence[Entry]],
    samples: Sequence[Sample],
    history: History,
    rules: Rules,
) -> list[Comparison]:
    comparisons: list[Comparison] = []
    samples_of_run: dict[str, list[Sample]] = {}
    for now in entries:
        for against, before in _references(earlier[now.task, now.metric]):
            if before.run not in samples_of_run:
                samples_of_run[before.run] = history.samples(before.run)
            samples_before = samples_of_run[before.run]
            comparison = _comparison(now, before, against, samples, samples_before, rules)
            comparisons.append(comparison)

    differences = [comparison.difference for comparison in comparisons]
    judged = []
    for comparison, difference in zip(
        comparisons, judged_together(differences, rules), strict=True
    ):
        judged.append(replace(comparison, difference=difference))
    return judged


def _references(earlier: Sequence[Entry]) -> list[tuple[str, Entry]]:
    """Returns the entries that a run is compared with, and what each is of the earlier ones."""
    if not earlier:
        return []
    last = earlier[-1]
    best = max(earlier, key=lambda entry: (entry.value, entry.at))
    if last is best:
        return [("last and best", last)]
    return [("last", last), ("best", best)]


def _comparison(
    now: Entry,
    before: Entry,
    against: str,
    samples: Iterable[Sample],
    samples_before: Iterable[Sample],
    rules: Rules,
) -> Comparison:
    by_id = _by_id(samples, now)
    by_id_before = _by_id(samples_before, now)
    difference = paired(_values(by_id_before), _values(by_id), rules.of_task(now.task))
    changes = []
    for sample_id, sample in by_id.items():
        sample_before = by_id_before[sample_id]
        if sample.value != sample_before.value:
            changes.append(Change(before=sample_before, now=sample))
    return Comparison(now, before, against, difference, tuple(changes))


def _values(by_id: Mapping[str, Sample]) -> dict[str, float]:
    return {sample_id: sample.value for sample_id, sample in by_id.items()}


def _by_id(samples: Iterable[Sample], entry: Entry) -> dict[str, Sample]:
    tasks = frozenset(suite_of(entry.task).members(entry.task))
    by_id = {}
    for sample in samples:
        is_of_entry = sample.metric == entry.metric and sample.task in tasks
        if is_of_entry:
            by_id[sample.id] = sample
    return by_id


def _comparison_metrics(comparison: Comparison) -> dict[str, object]:
    """Returns an element of `comparisons` in metrics.json."""
    difference = comparison.difference
    return {
        "task": comparison.now.task,
        "metric": comparison.now.metric,
        "against": comparison.against,
        "run": comparison.before.run,
        "name": comparison.before.name,
        "before": comparison.before.value,
        "now": comparison.now.value,
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "p_value": difference.p_value,
        "p_adjusted": difference.p_adjusted,
        "margin": difference.margin,
        "detectable_loss": difference.detectable_loss,
        "same_setup": comparison.is_same_setup,
        "better": difference.better,
        "worse": difference.worse,
        "documents": difference.documents,
        "regression": difference.regression,
    }
