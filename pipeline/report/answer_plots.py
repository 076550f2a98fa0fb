"""Draws what a run answered: finish reasons, and distributions of log-probs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from actors.protocol.plain_text import bare
from pipeline.report.drawing import BAD, GOOD, IN, NARROW_WIDTH, OUT, Plot, svg
from pipeline.report.figures import percent

LogprobBin = Mapping[str, Any]

REASON_COLORS = {"stop": GOOD, "length": OUT, "repetition": BAD}
REASON_EXPLANATION = (
    "stop: at the end of the text or a stop string. length: at --max-tokens, perhaps cut off."
)
NAME_CHARS = 16
LARGE_PROBABILITY_BIN = -0.25  # log-probs above it: probabilities above 78 %


def finish_reasons(counts: Mapping[str, int]) -> Plot:
    """Plots how many samples ended for each reason.

    Args:
        counts: samples by finish reason, at least one.
    """
    names = [bare(name, NAME_CHARS) for name in counts]
    total = sum(counts.values())

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        values = list(counts.values())
        colors = [REASON_COLORS.get(name, IN) for name in counts]
        bars = axes.barh(range(len(names)), values, height=0.6, color=colors)
        labels = [f"{value:,}" for value in values]
        axes.bar_label(bars, labels, padding=4)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="samples", ylim=(max(len(names), 2) - 0.4, -0.6))
        axes.set_xlim(0, 1.18 * max(values))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(visible=False)

    rows = []
    for name, count in counts.items():
        rows.append((name, f"{count:,}", percent(count / total)))
    return Plot(
        name="finish-reasons",
        title="Finish reasons",
        explanation=REASON_EXPLANATION,
        svg=svg("finish-reasons", draw, 2.2, NARROW_WIDTH),
        header=("reason", "samples", "share"),
        rows=tuple(rows),
    )


def logprobs(name: str, title: str, unit: str, histogram: Sequence[LogprobBin]) -> Plot:
    """Plots a histogram of log-probs.

    Args:
        name: of the plot.
        title: of the plot.
        unit: what is counted, in the plural: tokens, texts.
        histogram: bins of report.json, at least one; the lowest may have no lower end.
    """
    counts = np.array([entry["tokens"] for entry in histogram], float)
    ends = np.array([entry["to"] for entry in histogram], float)
    total = counts.sum()
    width = 0.25
    for entry in histogram:
        if entry["from"] is not None:
            width = entry["to"] - entry["from"]
    shares = counts / total

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(ends - width, shares, width=0.92 * width, align="edge", color=IN)
        axes.set(xlabel="log-prob (natural logarithm)", ylabel=f"share of {unit}")
        axes.set_xlim(min(-2.0, float(ends[0]) - width) - 0.1, 0.1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))

    likely = shares[ends > LARGE_PROBABILITY_BIN].sum()
    median_end = ends[int(np.searchsorted(np.cumsum(counts), total / 2))]
    rows = []
    for entry, share_of_bin in zip(histogram, shares, strict=True):
        label = f"{entry['to']:g} and less"
        if entry["from"] is not None:
            label = f"{entry['from']:g} to {entry['to']:g}"
        rows.append((label, f"{entry['tokens']:,}", percent(float(share_of_bin))))
    return Plot(
        name=name,
        title=title,
        explanation=(
            f"0 is certain. {percent(float(likely))} of the {unit} are above -0.25, a probability "
            f"of 78\u00a0%. The median is between {median_end - width:g} and {median_end:g}."
        ),
        svg=svg(name, draw, 2.2, NARROW_WIDTH),
        header=("log-prob", unit, "share"),
        rows=tuple(rows),
    )
