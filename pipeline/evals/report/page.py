"""An `Evaluation` → report.html: one page that needs nothing else, neither network nor script.

Every text that comes from data, models or the configuration is escaped. Size is bounded whatever
the number of documents.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Change, Comparison, Evaluation
from pipeline.evals.history import Entry
from pipeline.evals.multiple_choice import ACCURACY
from pipeline.evals.report.plots import calibration, differences, metric_name, tasks_of_group, trend
from pipeline.evals.suite import EvalRequest, Suite
from pipeline.evals.tasks import suite_of
from pipeline.monitoring.length_bins import histogram, length_bin
from pipeline.report.figures import percent, quantile
from pipeline.report.page import cards, figure, page, remarks, table, text
from pipeline.report.plots import lengths

MOST_CHANGES = 25  # shown of each direction and metric
QUESTION_CHARS = 400  # of a prompt's end
LONG_STOP = 0.05  # share of completions that reached max_tokens, beyond which it is pointed out


def render(evaluation: Evaluation, rules: Rules, where: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
        evaluation: the run.
        rules: by which regressions were found.
        where: names and places that the header tells, such as the output's URL.
    """
    title = f"Evaluation: {text(evaluation.info.name or evaluation.info.run)}"
    sections = (
        _header(evaluation, where), _cards(evaluation), remarks(_worth_a_look(evaluation)), _comparisons(evaluation, rules),
        _trend(evaluation), _groups(evaluation), _calibration(evaluation), _lengths(evaluation), _changes(evaluation),
        _results(evaluation),
    )  # fmt: skip
    return page(title, "\n".join(sections))


def _header(evaluation: Evaluation, where: Mapping[str, str]) -> str:
    info = evaluation.info
    words, color = (
        ("no regression", "good") if evaluation.comparisons else ("nothing to compare with", "warn")
    )
    if evaluation.regressions:
        words, color = "regression", "bad"
    facts = {
        "Run": info.name or info.run, "Reported": f"{info.at:%Y-%m-%d %H:%M:%S} UTC", "Model": info.model,
        "Checkpoint": info.checkpoint, "Commit": info.git_commit, **where,
    }  # fmt: skip
    lines = "".join(f"<p><b>{name}</b> {text(value)}</p>" for name, value in facts.items() if value)
    return f'<header>\n<h1>Evaluation <span class="status {color}">{words}</span></h1>\n{lines}</header>'


def _cards(evaluation: Evaluation) -> str:
    entries = []
    for entry in evaluation.headlines:
        error = "" if entry.stderr is None else f"±\u00a0{100 * entry.stderr:.2f}, "
        entries.append(
            (
                text(metric_name(entry.task, entry.metric)),
                _points(entry.value),
                f"{error}{entry.count:,} documents",
            )
        )
    return cards(entries)


def _worth_a_look(evaluation: Evaluation) -> Iterator[str]:
    for each in evaluation.regressions:
        name, run = (
            text(metric_name(each.now.task, each.now.metric)),
            text(each.before.name or each.before.run),
        )
        yield (
            f"<b>{name}</b> lost {-100 * each.difference.value:.2f} points against the "
            f"{each.against} run, {run}: more than is "
            "accepted, and more than chance explains."
        )
    for each in evaluation.comparisons:
        if each.difference.certain and each.difference.value < 0 and not each.difference.regression:
            name, run = (
                text(metric_name(each.now.task, each.now.metric)),
                text(each.before.name or each.before.run),
            )
            lost = (
                f"{-100 * each.difference.value:.2f} points against the {each.against} run, {run}"
            )
            yield f"{name} lost {lost}: more than chance explains, but no more than is accepted."
    if evaluation.failed:
        yield f"{evaluation.failed:,} of {len(evaluation.requests):,} rows failed; their documents count as wrong."
    valued = {sample.task for sample in evaluation.samples}
    for task in dict.fromkeys(request.task for request in evaluation.requests):
        if task not in valued:
            yield f"{text(task)}: no metric. Its programs were not executed: that takes --execute-programs."
    for suite in _suites(evaluation):
        present = {request.task for request in evaluation.requests} & set(suite.tasks)
        if len(present) < len(suite.tasks):
            yield f"{text(suite.name)}: {len(present)} of its {len(suite.tasks)} tasks; sums are of these alone."
    yield from _long_stops(evaluation)


def _long_stops(evaluation: Evaluation) -> Iterator[str]:
    limited: Counter[str] = Counter()
    completed: Counter[str] = Counter()
    for request in evaluation.requests:
        for answer in evaluation.answers[request.id]:
            limited[request.task] += answer.finish_reason == "length"
            completed[request.task] += answer.finish_reason is not None
    for task, count in completed.items():
        if count and limited[task] / count > LONG_STOP:
            yield f"{text(task)}: {percent(limited[task] / count)} of the completions ended at max_tokens, without a stop string."


def _comparisons(evaluation: Evaluation, rules: Rules) -> str:
    if not evaluation.comparisons:
        return "<h2>Comparison</h2><p>No earlier run in the history asked the same documents.</p>"
    rows, drawn = [], []
    for each in evaluation.comparisons:
        found = each.difference
        name = metric_name(each.now.task, each.now.metric)
        rows.append(
            (
                name, each.against, each.before.name or each.before.run, _points(each.before.value), _points(each.now.value),
                f"{100 * found.value:+.2f}", f"{100 * found.low:+.2f} to {100 * found.high:+.2f}",
                "–" if found.p_value is None else f"{found.p_value:.3g}", f"{found.better:,}", f"{found.worse:,}",
                "regression" if found.regression else "",
            )
        )  # fmt: skip
        drawn.append(
            (f"{name}, {each.against}", found.value, found.low, found.high, found.regression)
        )
    header = (
        "metric",
        "against",
        "run",
        "before",
        "now",
        "difference",
        "interval",
        "p",
        "better",
        "worse",
        "",
    )
    return (
        f"<h2>Comparison</h2><p>Both runs answered the same documents, and their answers are "
        f"compared one by one. Intervals "
        f"({percent(rules.confidence)}) are a bootstrap over documents; p is McNemar's exact test, "
        "two-sided. Accepted loss: "
        f"{100 * rules.margin:g} "
        f"points.</p>{table(header, rows)}{figure(differences(drawn, rules.margin))}"
    )


def _trend(evaluation: Evaluation) -> str:
    series = {
        (each.task, each.metric): [*evaluation.earlier[each.task, each.metric], each]
        for each in evaluation.headlines
    }
    return f"<h2>Over time</h2>{figure(trend(series))}" if series else ""


def _groups(evaluation: Evaluation) -> str:
    drawn = []
    for suite in _suites(evaluation):
        entries = [entry for entry in evaluation.entries if entry.task in suite.tasks]
        if suite.groups and entries:
            before = [evaluation.earlier[entry.task, entry.metric][-1:] for entry in entries]
            last = {found.task: found.value for each in before for found in each}
            drawn.append(
                figure(tasks_of_group(entries, last, _narrowest(suite), f"{suite.name} by subject"))
            )
    return f"<h2>Subjects</h2>{''.join(drawn)}" if drawn else ""


def _narrowest(suite: Suite) -> dict[str, str]:
    """Returns the alias of the narrowest group of each task."""
    return {task: group.alias for group in reversed(suite.groups) for task in group.tasks}


def _calibration(evaluation: Evaluation) -> str:
    sure = [
        each
        for each in evaluation.samples
        if each.confidence is not None and each.metric == ACCURACY
    ]
    return f"<h2>Calibration</h2>{figure(calibration(sure))}" if sure else ""


def _lengths(evaluation: Evaluation) -> str:
    answers = [answer for each in evaluation.answers.values() for answer in each]
    drawn = []
    for name, title, counted in (
        ("prompt-lengths", "Prompt lengths", [answer.prompt_tokens for answer in answers]),
        (
            "completion-lengths",
            "Completion lengths",
            [answer.completion_tokens for answer in answers],
        ),
    ):
        if known := Counter(length_bin(length) for length in counted if length is not None):
            bins = histogram(known)
            words = f"Half of them have up to {quantile(bins, 0.5):,} tokens, 99\u00a0% up to {quantile(bins, 0.99):,}."
            drawn.append(figure(lengths(name, title, bins, words)))
    return f'<h2>Lengths</h2><div class="pair">{"".join(drawn)}</div>' if drawn else ""


def _changes(evaluation: Evaluation) -> str:
    requests = {request.id: request for request in evaluation.requests}
    shown = [
        _changed(each, requests)
        for each in evaluation.comparisons
        if each.against.startswith("last")
    ]
    return f"<h2>What changed since the last run</h2>{''.join(shown)}" if shown else ""


def _changed(comparison: Comparison, requests: Mapping[str, EvalRequest]) -> str:
    name = text(metric_name(comparison.now.task, comparison.now.metric))
    parts = []
    for word, changes in (
        ("worse", [each for each in comparison.changes if each.now.value < each.before.value]),
        ("better", [each for each in comparison.changes if each.now.value > each.before.value]),
    ):
        if changes:
            most = f", the first {MOST_CHANGES}" if len(changes) > MOST_CHANGES else ""
            rows = [
                _change_row(change, requests[change.now.id]) for change in changes[:MOST_CHANGES]
            ]
            listed = table(("id", "end of the prompt", "expected", "before", "now"), rows)
            parts.append(
                f"<details><summary>{len(changes):,} {word}{most}</summary>{listed}</details>"
            )
    return f"<h3>{name}</h3>{''.join(parts) or '<p>Every document has the same value.</p>'}"


def _change_row(change: Change, request: EvalRequest) -> Sequence[str]:
    return (
        request.id,
        request.prompt[-QUESTION_CHARS:],
        request.target,
        change.before.answer,
        change.now.answer,
    )


def _results(evaluation: Evaluation) -> str:
    rows = [_result_row(entry) for entry in evaluation.entries]
    header = ("task", "metric", "value", "standard error", "documents", "failed")
    return f"<h2>All results</h2><details><summary>{len(rows):,} metrics</summary>{table(header, rows)}</details>"


def _result_row(entry: Entry) -> Sequence[str]:
    error = "N/A" if entry.stderr is None else f"{100 * entry.stderr:.2f}"
    return (
        entry.task,
        entry.metric,
        _points(entry.value),
        error,
        f"{entry.count:,}",
        f"{entry.failed:,}",
    )


def _suites(evaluation: Evaluation) -> list[Suite]:
    found = {suite_of(request.task).name: suite_of(request.task) for request in evaluation.requests}
    return list(found.values())


def _points(value: float) -> str:
    return f"{100 * value:.2f}\u00a0%"
