"""Plots of an evaluation, with the same form as those of a run in pipeline/report/plots.py."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.evals.comparison import Difference
from pipeline.evals.history import NORMAL_95, Entry
from pipeline.evals.scoring import Sample
from pipeline.report.drawing import BAD, CALM, IN, INK, OUT, Plot, is_narrow, svg
from pipeline.report.figures import percent

Values = npt.NDArray[np.float64]

MAX_RUNS = 60  # of a trend: older ones are left out
MAX_INTERVAL_LINES = 24  # runs with a line for their interval; more have a band
NARROW_LABEL_CHARS = 20  # of a line of a label on a phone
MAX_DATES = 4  # labels of its time axis
BINS = 10  # of a calibration
ROW_INCHES = 0.19
UNNAMED_FILTERS = frozenset({"none", "create_test"})  # a metric's name goes without them


def metric_name(task: str, metric: str) -> str:
    """Returns a task and its metric in words."""
    score_name, _, filter_name = metric.partition(",")
    if filter_name in UNNAMED_FILTERS:
        return f"{task}: {score_name}"
    return f"{task}: {score_name}, {filter_name}"


def trend(
    series: Mapping[tuple[str, str], Sequence[Entry]],
    chances: Mapping[tuple[str, str], float | None],
) -> Plot:
    """Metrics over the runs.

    Args:
        series: by task and metric; oldest first, this run last.
        chances: accuracy of random choices; None for a metric that is not of choices.
    """
    recent: dict[str, Sequence[Entry]] = {}
    chance_of: dict[str, float | None] = {}
    for (task, metric), entries in series.items():
        name = metric_name(task, metric)
        recent[name] = entries[-MAX_RUNS:]
        chance_of[name] = chances.get((task, metric))

    rows = -(-len(recent) // 2)

    def draw(figure: Figure) -> None:
        columns = min(len(recent), 2)
        if is_narrow(figure):
            columns = 1
        figure_rows = -(-len(recent) // columns)
        for position, (name, entries) in enumerate(recent.items(), 1):
            axes = figure.add_subplot(figure_rows, columns, position)
            axes.set_title(name)
            _draw_trend(axes, entries, chance_of[name])

    table = []
    for name, entries in recent.items():
        for entry in entries:
            reported_at = f"{entry.at:%Y-%m-%d %H:%M}"
            run = entry.run_name
            value = percent(entry.value)
            table.append((reported_at, run, name, value, _interval(entry)))

    return Plot(
        name="trend",
        title="Trend",
        explanation=(
            f"Runs over the same documents, at most the last {MAX_RUNS}, this one in colour. "
            "Vertical lines, or the band of many runs, are 95\u00a0% confidence intervals over "
            "documents: they overlap even where paired differences, above, are certain. Dashed: "
            "chance."
        ),
        svg=svg("trend", draw, 0.4 + 2.0 * rows, narrow_height=0.4 + 2.0 * len(recent)),
        header=("reported at", "run", "metric", "value", "95\u00a0% interval"),
        rows=tuple(table),
    )


def _draw_trend(axes: Axes, entries: Sequence[Entry], chance: float | None) -> None:
    values, errors = _values_and_errors(entries)
    positions = np.arange(len(entries))
    if len(entries) > MAX_INTERVAL_LINES:
        axes.fill_between(
            positions, values - errors, values + errors, color=CALM, alpha=0.3, linewidth=0
        )
        axes.plot(positions, values, "-", color=IN)
    else:
        axes.errorbar(
            positions,
            values,
            errors,
            fmt="-",
            color=IN,
            ecolor=CALM,
            elinewidth=1,
            marker="o",
            markersize=3.5,
        )
    axes.plot(positions[-1:], values[-1:], "o", color=OUT, markersize=5, zorder=3, clip_on=False)
    low = float((values - errors).min())
    high = float((values + errors).max())
    if chance is not None:
        axes.axhline(chance, color=CALM, linewidth=1, linestyle="--")
        low = min(low, chance)
        high = max(high, chance)
    _share_axis(axes, low, high)

    labelled = positions[:: -(-len(entries) // MAX_DATES)]
    axes.set_xticks(labelled, [f"{entries[position].at:%Y-%m-%d}" for position in labelled])
    axes.margins(x=0.12)


def tasks_of_group(
    entries: Sequence[Entry],
    last_values: Mapping[str, float],
    groups: Mapping[str, str],
    title: str,
    chance: float | None = None,
) -> Plot:
    """A metric of each task of a group, best first.

    Args:
        entries: one per task.
        last_values: value of each task in the last run that has it.
        groups: alias of the group of each task.
        title: of the plot.
        chance: accuracy of random choices; None for a metric that is not of choices.
    """
    ranked = sorted(entries, key=lambda entry: (-entry.value, entry.task))
    names = [entry.task.partition("_")[2].replace("_", " ") for entry in ranked]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        positions = np.arange(len(ranked))
        values, errors = _values_and_errors(ranked)
        axes.errorbar(values, positions, xerr=errors, fmt="none", ecolor=CALM, elinewidth=1)
        axes.plot(values, positions, "o", color=IN, markersize=4, clip_on=False)

        last = np.array([last_values.get(entry.task, np.nan) for entry in ranked])
        in_last_run = ~np.isnan(last)
        axes.plot(
            last[in_last_run],
            positions[in_last_run],
            "|",
            color=OUT,
            markersize=9,
            clip_on=False,
        )
        if chance is not None:
            axes.axvline(chance, color=CALM, linewidth=1, linestyle="--")
        axes.set_yticks(positions, names, fontsize=8)
        axes.set(ylim=(len(ranked) - 0.4, -0.6), xlim=(0, 1), xlabel="share that is right")
        _format_as_percent(axes.xaxis)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")

    rows = []
    for name, entry in zip(names, ranked, strict=True):
        last_value = "–"
        if entry.task in last_values:
            last_value = percent(last_values[entry.task])
        row = (
            name,
            groups[entry.task],
            percent(entry.value),
            _interval(entry),
            f"{entry.count:,}",
            last_value,
        )
        rows.append(row)

    return Plot(
        name="subjects",
        title=title,
        explanation=(
            "Dots: this run, with 95\u00a0% confidence intervals over documents. Orange bars: the "
            "last run. Dashed: chance. Few documents, wide intervals: single subjects are not "
            "judged."
        ),
        svg=svg("subjects", draw, 0.5 + ROW_INCHES * max(len(ranked), 4)),
        header=("task", "group", "now", "95\u00a0% interval", "documents", "last run"),
        rows=tuple(rows),
    )


def calibration(samples: Sequence[Sample]) -> Plot:
    """How often the chosen answer is right, by its probability among the choices.

    Args:
        samples: with a confidence each.
    """
    confidences = np.array([sample.confidence for sample in samples], float)
    values = np.array([sample.value for sample in samples])

    bin_numbers = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bin_counts = np.bincount(bin_numbers, minlength=BINS)
    occupied = np.flatnonzero(bin_counts)
    counts = bin_counts[occupied]
    mean_confidences = np.bincount(bin_numbers, confidences, BINS)[occupied] / counts
    mean_values = np.bincount(bin_numbers, values, BINS)[occupied] / counts
    error = float(np.abs(mean_confidences - mean_values) @ counts / len(samples))

    def draw(figure: Figure) -> None:
        rows, columns = (2, 1) if is_narrow(figure) else (1, 2)
        accuracy_axes = figure.add_subplot(rows, columns, 1)
        count_axes = figure.add_subplot(rows, columns, 2)

        accuracy_axes.plot([0, 1], [0, 1], "--", color=CALM, linewidth=1)
        accuracy_axes.plot(
            mean_confidences, mean_values, "-o", color=IN, markersize=4, clip_on=False
        )
        accuracy_axes.set(xlim=(0, 1), title="Share that is right")
        _share_axis(accuracy_axes, 0, 1)

        edges = np.arange(BINS) / BINS
        count_axes.bar(edges, bin_counts, width=0.9 / BINS, align="edge", color=IN, alpha=0.5)
        count_axes.set(xlim=(0, 1), title="Documents")
        count_axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))

        for axes in (accuracy_axes, count_axes):
            axes.set_xlabel("probability of the chosen answer")
            _format_as_percent(axes.xaxis)

    rows = []
    for number, count, mean_confidence, mean_value in zip(
        occupied, counts, mean_confidences, mean_values, strict=True
    ):
        edges = f"{100 * number // BINS}–{100 * (number + 1) // BINS}\u00a0%"
        rows.append((edges, f"{count:,}", percent(mean_confidence), percent(mean_value)))

    return Plot(
        name="calibration",
        title="Calibration of the chosen answer",
        explanation=(
            "On the dashed line the model is as often right as it is sure. Mean distance from it: "
            f"{percent(error)} (expected calibration error)."
        ),
        svg=svg("calibration", draw, 2.6, narrow_height=5.0),
        header=("probability", "documents", "mean probability", "right"),
        rows=tuple(rows),
    )


def differences(
    by_name: Sequence[tuple[str, Difference]],
    confidence: float = 0.95,
    *,
    title: str = "Differences over the same documents",
    explanation: str | None = None,
) -> Plot:
    """Paired differences with their confidence intervals.

    Args:
        by_name: name and difference of each comparison.
        confidence: of the intervals.
        title: of the plot.
        explanation: of the plot; None: that of a nightly comparison.
    """
    names = [name for name, _ in by_name]
    narrow_names = [fill(name, NARROW_LABEL_CHARS) for name in names]
    narrow_lines = sum(name.count("\n") + 2 for name in narrow_names)
    narrow_height = 0.8 + 0.14 * max(narrow_lines, 6)
    if explanation is None:
        explanation = (
            f"This run less the earlier one, in points, with {percent(confidence)} confidence "
            "intervals. A loss whose whole interval lies left of the dashed line, the accepted "
            "margin, is a regression if the exact test agrees."
        )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for position, (_, difference) in enumerate(by_name):
            color = BAD if difference.regression else IN
            interval = [100 * difference.low, 100 * difference.high]
            axes.plot(interval, [position, position], color=color, linewidth=2)
            axes.plot([100 * difference.value], [position], "o", color=color, markersize=5)
            if difference.margin:
                margin = -100 * difference.margin
                ends = [position - 0.5, position + 0.5]
                axes.plot([margin, margin], ends, color=BAD, linewidth=0.8, linestyle="--")
        axes.axvline(0, color=INK, linewidth=0.8)
        labels = names
        if is_narrow(figure):
            labels = narrow_names
        axes.set_yticks(range(len(names)), labels, fontsize=8)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="points")
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")

    rows = []
    for name, difference in by_name:
        row = (
            name,
            f"{100 * difference.value:+.2f}",
            f"{100 * difference.low:+.2f}",
            f"{100 * difference.high:+.2f}",
            "yes" if difference.regression else "no",
        )
        rows.append(row)

    return Plot(
        name="differences",
        title=title,
        explanation=explanation,
        svg=svg("differences", draw, 0.7 + 0.3 * max(len(names), 2), narrow_height=narrow_height),
        header=("metric, against", "points", "from", "to", "regression"),
        rows=tuple(rows),
    )


def _values_and_errors(entries: Sequence[Entry]) -> tuple[Values, Values]:
    """Returns values, and the half widths of their 95 % intervals: 0 without a standard error."""
    values = np.array([entry.value for entry in entries])
    stderrs = np.array([entry.stderr or 0.0 for entry in entries])
    return values, NORMAL_95 * stderrs


def _share_axis(axes: Axes, low: float, high: float) -> None:
    """Scales the value axis to shares from `low` to `high`; ends of intervals may exceed 1."""
    padding = max(0.05 * (high - low), 0.02)
    bottom = max(0.0, low - padding)
    top = 1.0 + padding
    if high <= 1:
        top = min(1.0, high + padding)
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _format_as_percent(axes.yaxis)


def _format_as_percent(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def _interval(entry: Entry) -> str:
    if entry.interval is None:
        return "N/A"
    low, high = entry.interval
    return f"{percent(low)} to {percent(high)}"
