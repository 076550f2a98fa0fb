"""The report of an evaluation as report.html: one page that needs neither network nor scripts.

Its size is bounded whatever the number of documents.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from markupsafe import Markup

from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Comparison, Evaluation
from pipeline.evals.history import Entry, run_name
from pipeline.evals.multiple_choice import ACCURACY
from pipeline.evals.report.documents import (
    ChangedDocuments,
    Examples,
    changed_documents,
    examples_of,
)
from pipeline.evals.report.plots import calibration, differences, metric_name, tasks_of_group, trend
from pipeline.evals.scoring import Sample
from pipeline.evals.suite import Suite, task_names
from pipeline.evals.tasks import suite_of
from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.report.drawing import Plot
from pipeline.report.figures import percent, quantile
from pipeline.report.page import Status, render_template, text
from pipeline.report.plots import lengths

MAX_NAMED = 3  # metrics in the verdict
MAX_FLAKY = 5  # documents of a remark
MIN_WEAK_LOSS = 0.1  # smaller detectable losses are not worth a remark
MAX_LIMITED_SHARE = 0.05  # of a task's completions that end at max_tokens, without a remark

REGRESSION = Status("regression", "bad")
NO_REGRESSION = Status("no regression", "good")
NO_COMPARISON = Status("nothing to compare with", "warn")


@dataclass(frozen=True, slots=True)
class MetricChanges:
    """Documents whose value of one metric changed since the last run."""

    name: str  # of the metric
    # the worse ones first; a direction without changes is absent
    directions: tuple[ChangedDocuments, ...]


def render(evaluation: Evaluation, rules: Rules, locations: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
        evaluation: the run.
        rules: margin and confidence of its comparisons.
        locations: URLs for the header, by name, such as that of the output.
    """
    context = context_of(evaluation, rules, locations)
    return render_template("evaluation.html.j2", package="pipeline.evals.report", **context)


def context_of(
    evaluation: Evaluation, rules: Rules, locations: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the values that the template names."""
    return {
        "title": run_name(evaluation.info.name, evaluation.info.reported_at),
        "status": _status(evaluation),
        "verdict": _verdict(evaluation, rules),
        "facts": _facts(evaluation, locations),
        "cards": list(_cards(evaluation)),
        "remarks": list(_remarks(evaluation)),
        "confidence": rules.confidence,
        "comparison_rows": list(map(_comparison_row, evaluation.comparisons)),
        "difference_plot": _difference_plot(evaluation, rules),
        "trend_plot": _trend_plot(evaluation),
        "subject_plots": list(_subject_plots(evaluation)),
        "calibration_plot": _calibration_plot(evaluation),
        "length_plots": list(_length_plots(evaluation)),
        "metric_changes": list(_metric_changes(evaluation)),
        "examples": list(_examples(evaluation)),
        "result_rows": [_result_row(entry, evaluation) for entry in evaluation.entries],
    }


# -- header ----------------------------------------------------------------------------------------


def _status(evaluation: Evaluation) -> Status:
    if evaluation.regressions:
        return REGRESSION
    if evaluation.comparisons:
        return NO_REGRESSION
    return NO_COMPARISON


def _facts(evaluation: Evaluation, locations: Mapping[str, str]) -> dict[str, str | None]:
    info = evaluation.info
    return {
        "Run": f"{run_name(info.name, info.reported_at)} (id {info.run})",
        "Reported": f"{info.reported_at:%Y-%m-%d %H:%M:%S} UTC",
        "Model": info.model,
        "Checkpoint": info.checkpoint,
        "Commit": info.git_commit,
        **locations,
    }


def _verdict(evaluation: Evaluation, rules: Rules) -> str:
    """Returns the result of the comparisons as one sentence: whether, where, and how certain."""
    if not evaluation.comparisons:
        return "No earlier run in the history has the same documents: nothing to compare with yet."
    regressions = evaluation.regressions
    confidence = percent(rules.confidence)
    if not regressions:
        return (
            f"Not worse: none of {len(evaluation.comparisons)} comparisons shows a loss beyond the "
            f"accepted one with {confidence} confidence."
        )
    by_metric: dict[str, Comparison] = {}
    for comparison in regressions:  # that against the last run comes first
        by_metric.setdefault(metric_name(comparison.now.task, comparison.now.metric), comparison)
    losses = []
    for name, comparison in list(by_metric.items())[:MAX_NAMED]:
        difference = comparison.difference
        losses.append(
            f"{name} {100 * difference.value:+.2f} points against {comparison.before.run_name} "
            f"({confidence} interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
        )
    if len(by_metric) > MAX_NAMED:
        losses.append(f"{len(by_metric) - MAX_NAMED} more metrics")
    return f"Worse: {'; '.join(losses)}."


def _cards(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and note of each headline metric."""
    for entry in evaluation.headlines:
        notes = [f"{entry.count:,} documents"]
        if entry.interval is not None:
            notes.insert(0, f"95\u00a0% interval {_interval(entry)}")
        chance = evaluation.chance(entry)
        if chance is not None:
            notes.append(f"chance {percent(chance)}")
        yield metric_name(entry.task, entry.metric), _percentage(entry.value), "; ".join(notes)


def _interval(entry: Entry) -> str:
    """Returns the 95 % interval of a metric in percent."""
    if entry.interval is None:
        return "–"
    low, high = entry.interval
    return f"{100 * low:.1f} to {100 * high:.1f}\u00a0%"


# -- remarks ---------------------------------------------------------------------------------------


def _remarks(evaluation: Evaluation) -> Iterator[Markup]:
    """Yields what stands out."""
    for comparison in evaluation.regressions:
        yield Markup(
            "<b>{}</b> lost {}: more than is accepted, and more than chance explains."
        ).format(_metric(comparison), _loss(comparison))
    for comparison in evaluation.comparisons:
        if _is_accepted_loss(comparison):
            yield Markup(
                "{} lost {}: more than chance explains, but no more than is accepted."
            ).format(_metric(comparison), _loss(comparison))
    yield from _flaky_documents(evaluation)
    yield from _weak_comparisons(evaluation)
    if evaluation.failed:
        yield Markup("{:,} of {:,} rows failed; their documents count as wrong.").format(
            evaluation.failed, len(evaluation.requests)
        )
    if evaluation.missing:
        yield Markup("<b>Incomplete:</b> {:,} of these have no output row.").format(
            evaluation.missing
        )
    yield from _tasks_without_metric(evaluation)
    yield from _incomplete_suites(evaluation)
    yield from _limited_completions(evaluation)


def _flaky_documents(evaluation: Evaluation) -> Iterator[Markup]:
    for comparison in evaluation.comparisons:
        if comparison.is_same_setup and comparison.changes:
            ids = [change.now.id for change in comparison.changes]
            named = ", ".join(ids[:MAX_FLAKY])
            if len(ids) > MAX_FLAKY:
                named += " …"
            yield Markup(
                "{}: {:,} flaky documents: their values differ from those of {}, although model, "
                "settings and code are the same ({})."
            ).format(_metric(comparison), len(ids), text(comparison.before.run_name), text(named))


def _weak_comparisons(evaluation: Evaluation) -> Iterator[Markup]:
    for comparison in evaluation.comparisons:
        loss = comparison.difference.detectable_loss
        if loss is None:
            yield Markup("{}: {:,} documents are too few to show any loss.").format(
                _metric(comparison), comparison.difference.documents
            )
        elif loss > MIN_WEAK_LOSS:
            yield Markup("{}: {:,} documents show only losses of {:.0f} points or more.").format(
                _metric(comparison), comparison.difference.documents, 100 * loss
            )


def _is_accepted_loss(comparison: Comparison) -> bool:
    difference = comparison.difference
    return difference.certain and difference.value < 0 and not difference.regression


def _metric(comparison: Comparison) -> Markup:
    return text(metric_name(comparison.now.task, comparison.now.metric))


def _loss(comparison: Comparison) -> Markup:
    return Markup("{:.2f} points against the {} run, {}").format(
        -100 * comparison.difference.value,
        comparison.against,
        text(comparison.before.run_name),
    )


def _tasks_without_metric(evaluation: Evaluation) -> Iterator[Markup]:
    scored_tasks = {sample.task for sample in evaluation.samples}
    for task in task_names(evaluation.requests):
        if task not in scored_tasks:
            yield Markup(
                "{}: no metric. Its programs were not executed: that takes --execute-programs."
            ).format(text(task))


def _incomplete_suites(evaluation: Evaluation) -> Iterator[Markup]:
    tasks = task_names(evaluation.requests)
    for suite in _suites(evaluation):
        present = suite.tasks.keys() & tasks
        if len(present) < len(suite.tasks):
            yield Markup("{}: {} of its {} tasks; sums are of these alone.").format(
                text(suite.name), len(present), len(suite.tasks)
            )


def _limited_completions(evaluation: Evaluation) -> Iterator[Markup]:
    limited: Counter[str] = Counter()
    completed: Counter[str] = Counter()
    for request in evaluation.requests:
        for answer in evaluation.answers[request.id]:
            limited[request.task] += answer.finish_reason == "length"
            completed[request.task] += answer.finish_reason is not None

    for task, count in completed.items():
        if count and limited[task] / count > MAX_LIMITED_SHARE:
            yield Markup(
                "{}: {} of the completions ended at max_tokens, without a stop string."
            ).format(text(task), percent(limited[task] / count))


# -- comparison ------------------------------------------------------------------------------------


def _comparison_row(comparison: Comparison) -> tuple[str, ...]:
    difference = comparison.difference
    return (
        metric_name(comparison.now.task, comparison.now.metric),
        comparison.against,
        comparison.before.run_name,
        _percentage(comparison.before.value),
        _percentage(comparison.now.value),
        f"{100 * difference.value:+.2f}",
        f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}",
        f"{difference.p_adjusted:.3g}",
        f"{difference.better:,}",
        f"{difference.worse:,}",
        f"{100 * difference.margin:g}",
        _points(difference.detectable_loss),
        "regression" if difference.regression else "",
    )


def _points(loss: float | None) -> str:
    return "–" if loss is None else f"{100 * loss:.1f}"


def _difference_plot(evaluation: Evaluation, rules: Rules) -> Plot | None:
    if not evaluation.comparisons:
        return None
    by_name = []
    for comparison in evaluation.comparisons:
        name = metric_name(comparison.now.task, comparison.now.metric)
        by_name.append((f"{name}, {comparison.against}", comparison.difference))
    return differences(by_name, rules.confidence)


# -- other plots -----------------------------------------------------------------------------------


def _trend_plot(evaluation: Evaluation) -> Plot | None:
    """Returns the metrics over time; None on the first night, when each has one value."""
    series = {}
    chances = {}
    for entry in evaluation.headlines:
        key = (entry.task, entry.metric)
        if evaluation.earlier[key]:
            series[key] = [*evaluation.earlier[key], entry]
            chances[key] = evaluation.chance(entry)
    if not series:
        return None
    return trend(series, chances)


def _subject_plots(evaluation: Evaluation) -> Iterator[Plot]:
    for suite in _suites(evaluation):
        entries = [entry for entry in evaluation.entries if entry.task in suite.tasks]
        if suite.groups and entries:
            title = f"{suite.name} by subject"
            last_values = _last_values(evaluation, entries)
            chance = evaluation.chance(entries[0])
            yield tasks_of_group(entries, last_values, _narrowest_groups(suite), title, chance)


def _last_values(evaluation: Evaluation, entries: Sequence[Entry]) -> dict[str, float]:
    """Returns the value of each task in the last run that has it."""
    last_values = {}
    for entry in entries:
        earlier = evaluation.earlier[entry.task, entry.metric]
        if earlier:
            last_values[entry.task] = earlier[-1].value
    return last_values


def _narrowest_groups(suite: Suite) -> dict[str, str]:
    """Returns the alias of the narrowest group of each task."""
    aliases = {}
    for group in reversed(suite.groups):
        aliases.update(dict.fromkeys(group.tasks, group.alias))
    return aliases


def _calibration_plot(evaluation: Evaluation) -> Plot | None:
    samples = list(filter(_has_confidence, evaluation.samples))
    if not samples:
        return None
    return calibration(samples)


def _has_confidence(sample: Sample) -> bool:
    return sample.confidence is not None and sample.metric == ACCURACY


def _length_plots(evaluation: Evaluation) -> Iterator[Plot]:
    prompts: Counter[int] = Counter()
    completions: Counter[int] = Counter()
    for answer in chain.from_iterable(evaluation.answers.values()):
        if answer.prompt_tokens is not None:
            prompts[length_bin(answer.prompt_tokens)] += 1
        if answer.completion_tokens is not None:
            completions[length_bin(answer.completion_tokens)] += 1

    for name, title, counts in (
        ("prompt-lengths", "Prompt lengths", prompts),
        ("completion-lengths", "Completion lengths", completions),
    ):
        if counts:
            bins = histogram(counts)
            half = quantile(bins, 0.5)
            nearly_all = quantile(bins, 0.99)
            explanation = (
                f"Half of them have up to {half:,} tokens, 99\u00a0% up to {nearly_all:,}."
            )
            yield lengths(name, title, bins, explanation)


# -- changed documents -----------------------------------------------------------------------------


def _metric_changes(evaluation: Evaluation) -> Iterator[MetricChanges]:
    requests = {request.id: request for request in evaluation.requests}
    for comparison in evaluation.comparisons:
        if comparison.against.startswith("last"):
            name = metric_name(comparison.now.task, comparison.now.metric)
            yield MetricChanges(name, tuple(changed_documents(comparison, requests)))


def _examples(evaluation: Evaluation) -> Iterator[Examples]:
    for entry in evaluation.headlines:
        yield examples_of(evaluation, entry, metric_name(entry.task, entry.metric))


# -- results ---------------------------------------------------------------------------------------


def _result_row(entry: Entry, evaluation: Evaluation) -> tuple[str, ...]:
    stderr = "N/A" if entry.stderr is None else f"{100 * entry.stderr:.2f}"
    chance = evaluation.chance(entry)
    chance_text = "–" if chance is None else percent(chance)
    return (
        entry.task,
        entry.metric,
        _percentage(entry.value),
        stderr,
        _interval(entry),
        chance_text,
        f"{entry.count:,}",
        f"{entry.failed:,}",
    )


def _suites(evaluation: Evaluation) -> list[Suite]:
    suites = {}
    for request in evaluation.requests:
        suite = suite_of(request.task)
        suites[suite.name] = suite
    return list(suites.values())


def _percentage(value: float) -> str:
    """Returns a share as a percentage with two decimal places."""
    return f"{100 * value:.2f}\u00a0%"
