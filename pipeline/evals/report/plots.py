"""An `Evaluation` → plots, as pipeline/report/plots.py has them of a run: an SVG, a line that explains it, and a table."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.evals.history import Entry
from pipeline.evals.scoring import Sample
from pipeline.report.drawing import BAD, CALM, IN, INK, OUT, Plot, svg
from pipeline.report.figures import percent

MOST_RUNS = 60  # of a trend: older ones are left out
MOST_DATES = 4  # below it
BINS = 10  # of a calibration
NORMAL_95 = 1.96  # standard errors of an interval of 95 %
ROW_INCHES = 0.19


def metric_name(task: str, metric: str) -> str:
    """Returns a task and metric in words."""
    kind, _, chain = metric.partition(",")
    return f"{task}: {kind}" if chain in {"none", "create_test"} else f"{task}: {kind}, {chain}"


def trend(series: Mapping[tuple[str, str], Sequence[Entry]]) -> Plot:
    """How metrics developed over the runs; oldest first, this run last."""
    shown = {metric_name(*key): entries[-MOST_RUNS:] for key, entries in series.items()}
    rows = -(-len(shown) // 2)

    def draw(figure: Figure) -> None:
        for place, (name, entries) in enumerate(shown.items(), 1):
            axes = figure.add_subplot(rows, min(len(shown), 2), place)
            values = np.array([entry.value for entry in entries])
            errors = NORMAL_95 * np.array([entry.stderr or 0.0 for entry in entries])
            places = np.arange(len(entries))
            axes.errorbar(
                places,
                values,
                errors,
                fmt="-",
                color=IN,
                ecolor=CALM,
                elinewidth=1,
                marker="o",
                markersize=3.5,
            )
            axes.plot(
                places[-1:], values[-1:], "o", color=OUT, markersize=5, zorder=3, clip_on=False
            )
            axes.set_title(name)
            _share_axis(axes, float((values - errors).min()), float((values + errors).max()))
            shown_runs = places[:: -(-len(entries) // MOST_DATES)]
            axes.set_xticks(shown_runs, [f"{entries[place].at:%Y-%m-%d}" for place in shown_runs])
            axes.margins(x=0.12)

    table = tuple(
        (
            f"{entry.at:%Y-%m-%d %H:%M}",
            entry.name or entry.run,
            name,
            percent(entry.value),
            _stderr(entry.stderr),
        )
        for name, entries in shown.items()
        for entry in entries
    )
    return Plot(
        "trend",
        "Trend",
        "Runs over the same documents, this one last, in colour. Lines mark 95\u00a0% of what "
        "other documents of the kind might "
        "give: they overlap even where paired differences, above, are certain.",
        svg("trend", draw, 0.4 + 2.0 * rows),
        ("reported at", "run", "metric", "value", "standard error"),
        table,
    )


def tasks_of_group(
    entries: Sequence[Entry], last: Mapping[str, float], groups: Mapping[str, str], title: str
) -> Plot:
    """A metric of each task of a group, best first.

    Args:
        entries: one per task.
        last: value of each task in the last run, as far as it is known.
        groups: what each task belongs to.
        title: of the plot.
    """
    ranked = sorted(entries, key=lambda entry: (-entry.value, entry.task))
    names = [entry.task.partition("_")[2].replace("_", " ") for entry in ranked]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(ranked))
        values = np.array([entry.value for entry in ranked])
        errors = np.array([entry.stderr or 0.0 for entry in ranked])
        axes.errorbar(
            values, places, xerr=NORMAL_95 * errors, fmt="none", ecolor=CALM, elinewidth=1
        )
        axes.plot(values, places, "o", color=IN, markersize=4, clip_on=False)
        known = [
            (last[entry.task], place) for place, entry in enumerate(ranked) if entry.task in last
        ]
        axes.plot(
            [value for value, _ in known],
            [place for _, place in known],
            "|",
            color=OUT,
            markersize=9,
            clip_on=False,
        )
        axes.set_yticks(places, names, fontsize=8)
        axes.set(ylim=(len(ranked) - 0.4, -0.6), xlim=(0, 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")

    rows = tuple(
        (
            name,
            groups[entry.task],
            percent(entry.value),
            _stderr(entry.stderr),
            f"{entry.count:,}",
            _value(last.get(entry.task)),
        )
        for name, entry in zip(names, ranked, strict=True)
    )
    return Plot(
        "subjects",
        title,
        "Dots: this run, with 95\u00a0% of what other documents of the kind might give. Bars: the "
        "last run. Few documents, wide "
        "lines: single subjects are not judged.",
        svg("subjects", draw, 0.5 + ROW_INCHES * max(len(ranked), 4)),
        ("task", "group", "now", "standard error", "documents", "last run"),
        rows,
    )


def calibration(samples: Sequence[Sample]) -> Plot:
    """How often the chosen answer is right, by how sure the model was of it.

    Every sample has a confidence.
    """
    sure = np.array([sample.confidence for sample in samples], float)
    right = np.array([sample.value for sample in samples])
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    some = counts > 0
    mean_sure = np.bincount(bins, sure, BINS)[some] / counts[some]
    mean_right = np.bincount(bins, right, BINS)[some] / counts[some]
    error = float(np.abs(mean_sure - mean_right) @ counts[some] / len(samples))

    def draw(figure: Figure) -> None:
        rates, numbers = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        rates.plot([0, 1], [0, 1], "--", color=CALM, linewidth=1)
        rates.plot(mean_sure, mean_right, "-o", color=IN, markersize=4, clip_on=False)
        rates.set(xlim=(0, 1), title="Share that is right")
        _share_axis(rates, 0, 1)
        numbers.bar(
            np.arange(BINS) / BINS, counts, width=0.9 / BINS, align="edge", color=IN, alpha=0.5
        )
        numbers.set(xlim=(0, 1), title="Documents")
        numbers.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axes in (rates, numbers):
            axes.set_xlabel("probability of the chosen answer among the choices")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))

    edges = [
        f"{100 * place // BINS}–{100 * (place + 1) // BINS}\u00a0%"
        for place in np.flatnonzero(some)
    ]
    rows = tuple(
        (edge, f"{count:,}", percent(mean), percent(share))
        for edge, count, mean, share in zip(edges, counts[some], mean_sure, mean_right, strict=True)
    )
    return Plot(
        "calibration",
        "Calibration of the chosen answer",
        "On the dashed line the model is as often right as it is sure. Mean distance from it: "
        f"{percent(error)} "
        "(expected calibration error).",
        svg("calibration", draw, 2.6),
        ("probability", "documents", "mean probability", "right"),
        rows,
    )


def differences(named: Sequence[tuple[str, float, float, float, bool]], margin: float) -> Plot:
    """Paired differences with their intervals: name, value, low, high, and whether it is a regression."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (_, value, low, high, regression) in enumerate(named):
            color = BAD if regression else IN
            axes.plot([100 * low, 100 * high], [place, place], color=color, linewidth=2)
            axes.plot([100 * value], [place], "o", color=color, markersize=5)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axvline(-100 * margin, color=BAD, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(named)), [name for name, *_ in named])
        axes.set(ylim=(len(named) - 0.4, -0.6), xlabel="points")
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")

    points = [
        (name, *(f"{100 * each:+.2f}" for each in numbers), "yes" if bad else "no")
        for name, *numbers, bad in named
    ]
    return Plot(
        "differences",
        "Differences over the same documents",
        "This run less the earlier one, with confidence intervals. A loss whose whole interval "
        "lies left of the dashed line, the "
        "accepted margin, is a regression if the exact test agrees.",
        svg("differences", draw, 0.7 + 0.3 * max(len(named), 2)),
        ("metric, against", "points", "from", "to", "regression"),
        tuple(points),
    )


def _share_axis(axes: Axes, low: float, high: float) -> None:
    room = max(0.05 * (high - low), 0.02)
    axes.set_ylim(max(0.0, low - room), min(1.0, high + room) if high <= 1 else 1.0 + room)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def _stderr(value: float | None) -> str:
    return "N/A" if value is None else percent(value)


def _value(value: float | None) -> str:
    return "–" if value is None else percent(value)
