"""Draws the figures of report.json as plots, each with an explanation and a table of its numbers.

The amount of data is bounded by report.json, for runs of any size. Does not depend on the
page or on files.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from actors.protocol.plain_text import bare
from pipeline.report.drawing import (
    BAD,
    CALM,
    GOOD,
    IN,
    INK,
    LINE,
    OUT,
    WIDTH,
    Plot,
    count_axis,
    is_narrow,
    svg,
)
from pipeline.report.figures import (
    OverTime,
    Series,
    bin_label,
    duration,
    idle_tails,
    join_spans,
    padding,
    per_s,
    percent,
    reuse,
    share,
    time_unit,
)

Replica = Mapping[str, Any]
LengthBin = Mapping[str, int]

NAME_CHARS = 24
MAX_LENGTH_TICKS = 9
# of the map of replicas, which is a bitmap: legible on a light and on a dark background
BUSY_RGB = (0.16, 0.47, 0.84)
COMPILING_RGB = (0.90, 0.56, 0.20)
IDLE_ALPHA = 0.1
# of the replicas without work, in the table of the tail
TAIL_FRACTIONS = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
FAILURE_TITLES = {
    "errors": "Failed rows",
    "retries": "Requests queued again",
    "losses": "Replicas lost",
}
FAILURE_UNITS = {"errors": "rows", "retries": "requests", "losses": "replicas"}
TIME_LABEL = "{} since the job began"
PHASES = (
    "Grey background: the start, before the first batch. Orange background: most replicas wait for "
    "programs to be compiled."
)
PHASE_ALPHA = 0.16


# -- tokens ----------------------------------------------------------------------------------------


def throughput(over_time: OverTime, start_s: float = 0.0) -> Plot:
    """Plots prompt and completion tokens per second."""

    def draw(figure: Figure) -> None:
        prompt_axes = figure.add_subplot(2, 1, 1)
        completion_axes = figure.add_subplot(2, 1, 2)

        _stairs(prompt_axes, per_s(over_time, "prompt"), over_time, IN, start_s)
        prompt_axes.set(title="Read: prompts and scored texts", ylabel="tokens/s")
        count_axis(prompt_axes)

        _stairs(completion_axes, per_s(over_time, "completion"), over_time, GOOD, start_s)
        completion_axes.set(title="Generated", ylabel="tokens/s")
        count_axis(completion_axes)

        for axes in (prompt_axes, completion_axes):
            _shade_idle_phases(axes, over_time, start_s)
        _hide_time_labels(prompt_axes)

    spans = join_spans(over_time)
    rows = []
    rates = zip(per_s(spans, "prompt"), per_s(spans, "completion"), strict=True)
    for prompt_per_s, completion_per_s in rates:
        rows.append((f"{prompt_per_s:,.0f}", f"{completion_per_s:,.0f}"))
    return Plot(
        "throughput",
        "Tokens per second",
        "Tokens of answered rows, counted when their batch comes back, so short runs look stepped. "
        f"Reused tokens count as read. {PHASES}",
        svg("throughput", draw, 3.3),
        ("until", "read per s", "generated per s"),
        _with_times(spans, rows, start_s),
    )


def shares(over_time: OverTime, start_s: float = 0.0) -> Plot:
    """Plots padding and prefix reuse over time."""

    def draw(figure: Figure) -> None:
        padding_axes, reuse_axes = _two_axes(figure)

        _draw_shares(padding_axes, padding(over_time), over_time, BAD, start_s)
        padding_axes.set(title="Padding", ylabel="of computed positions")

        _draw_shares(reuse_axes, reuse(over_time), over_time, IN, start_s)
        reuse_axes.set(title="Prefix reuse", ylabel="of read tokens")
        if is_narrow(figure):
            _hide_time_labels(padding_axes)

    spans = join_spans(over_time)
    rows = []
    for padding_share, reuse_share in zip(padding(spans), reuse(spans), strict=True):
        rows.append((percent(padding_share), percent(reuse_share)))
    return Plot(
        "shares",
        "Padding and prefix reuse",
        "Padding is computed for nothing: less is better. Tokens of equal beginnings are not "
        "computed again: more is better.",
        svg("shares", draw, 2.2, narrow_height=3.6),
        ("until", "padding", "prefix reuse"),
        _with_times(spans, rows, start_s),
    )


def _two_axes(figure: Figure) -> tuple[Axes, Axes]:
    """Returns two axes beside each other; on a phone, one below the other."""
    if is_narrow(figure):
        return figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2)
    return figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)


def _draw_shares(
    axes: Axes, values: Series, over_time: OverTime, color: str, start_s: float
) -> None:
    """Draws shares over an axis of percentages: a full one, or a shorter one for small shares."""
    _stairs(axes, values, over_time, color, start_s)
    _shade_idle_phases(axes, over_time, start_s)
    highest = float(np.max(values, initial=0.0, where=~np.isnan(values)))
    limit = 1.0
    if highest <= 0.5:
        limit = max(0.05, highest * 1.25)
    axes.set_ylim(0, limit)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def lengths(name: str, title: str, histogram: Sequence[LengthBin], explanation: str) -> Plot:
    """Plots a histogram of the lengths of texts, in tokens, over a logarithmic axis.

    The height of a bar is the number of samples in its bin of report.json.
    """
    low = _column(histogram, "from")
    high = _column(histogram, "to")
    count = _column(histogram, "rows")
    color = GOOD
    if name == "prompt-lengths":
        color = IN

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        # half a token represents 0, which has no logarithm
        bin_starts = np.log2(np.maximum(low, 0.5))
        bin_ends = np.log2(high + 1)
        widths = bin_ends - bin_starts
        axes.bar(bin_starts, count, width=0.92 * widths, align="edge", color=color)

        first_exponent = max(0, math.floor(bin_starts[0]))
        last_exponent = math.ceil(bin_ends[-1])
        exponents = range(first_exponent, last_exponent + 1)
        exponents_per_tick = math.ceil(len(exponents) / MAX_LENGTH_TICKS)
        ticks = []
        labels = []
        for exponent in exponents[::exponents_per_tick]:
            tokens = 1 << exponent
            ticks.append(math.log2(tokens + 0.5))
            labels.append(f"{tokens:,}")
        axes.set_xticks(ticks, labels)

        begin = bin_starts[0] - 0.15
        end = max(bin_ends[-1], bin_starts[0] + 2) + 0.15
        axes.set(xlim=(begin, end), xlabel="tokens", ylabel="samples")
        count_axis(axes, integer=True)

    total = float(count.sum())
    rows = []
    for length_bin in histogram:
        samples = length_bin["rows"]
        label = bin_label(length_bin["from"], length_bin["to"])
        rows.append((label, f"{samples:,}", percent(samples / total)))
    return Plot(
        name,
        title,
        explanation,
        svg(name, draw, 2.2, WIDTH / 2),
        ("tokens", "samples", "share"),
        tuple(rows),
    )


def _column(histogram: Sequence[LengthBin], key: str) -> Series:
    return np.array([length_bin[key] for length_bin in histogram], float)


# -- replicas --------------------------------------------------------------------------------------


def capacity(over_time: OverTime, start_s: float = 0.0) -> Plot:
    """Plots how many replicas were up, and how many of them computed, compiled or loaded."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        up = np.nan_to_num(per_s(over_time, "up_s"))
        busy = np.minimum(np.nan_to_num(per_s(over_time, "busy_s")), up)
        compiling = np.nan_to_num(_rate_of_new_series(over_time, "compile_s"))
        loading = np.nan_to_num(_rate_of_new_series(over_time, "load_s"))
        if loading.any():
            _stairs(axes, up + loading, over_time, LINE, start_s, "loading")
        _stairs(axes, up, over_time, CALM, start_s, "up")
        if compiling.any():
            occupied = np.minimum(busy + compiling, up)
            _stairs(axes, occupied, over_time, OUT, start_s, "compiling")
        _stairs(axes, busy, over_time, IN, start_s, "busy")
        _shade_start(axes, over_time, start_s)
        axes.set_ylabel("replicas")
        count_axis(axes, integer=True)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)

    spans = join_spans(over_time)
    up_counts = per_s(spans, "up_s")
    busy_counts = per_s(spans, "busy_s")
    compiling_counts = _rate_of_new_series(spans, "compile_s")
    loading_counts = _rate_of_new_series(spans, "load_s")
    busy_shares = share(spans["busy_s"], spans["up_s"])
    rows = []
    columns = (up_counts, busy_counts, compiling_counts, loading_counts, busy_shares)
    for up, busy, compiling, loading, busy_share in zip(*columns, strict=True):
        counts = (f"{up:.1f}", f"{busy:.1f}", f"{compiling:.1f}", f"{loading:.1f}")
        rows.append((*counts, percent(min(busy_share, 1.0))))
    return Plot(
        "capacity",
        "Replicas up and busy",
        "What lies between was up and idle: waiting for batches, or for the last replica to "
        "finish. Replicas that wait for a program compile; those that load are not up yet. Grey "
        "background: the start, before the first batch.",
        svg("capacity", draw, 2.1),
        ("until", "up", "busy", "compiling", "loading", "busy share"),
        _with_times(spans, rows, start_s),
    )


def replica_map(
    over_time: OverTime, replicas: Sequence[Replica], start_s: float = 0.0
) -> Plot | None:
    """Plots the busy share of each replica over time; of many replicas, of the least busy ones.

    Returns None when report.json has the busy share of no replica.
    """
    profiled = [replica for replica in replicas if replica["busy_over_time"] is not None]
    if not profiled:
        return None
    up_count = sum(replica["up_s"] > 0 for replica in replicas)
    if len(profiled) < up_count:
        profiled.sort(key=lambda replica: replica["utilisation"])
    last_s = over_time["s"][-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        scale, unit = time_unit(start_s + last_s)
        picture = _busy_picture(profiled)
        begin = start_s / scale
        end = begin + over_time["s"][0] * picture.shape[1] / scale
        extent = (begin, end, len(profiled), 0)
        axes.imshow(picture, extent=extent, aspect="auto", interpolation="none")

        centers = []
        labels = []
        for index, replica in enumerate(profiled):
            center = index + 0.5
            _draw_last_moment(axes, replica, center, scale, start_s)
            centers.append(center)
            labels.append(f"{_short(replica['name'])}  {percent(replica['utilisation'])}")
        axes.set_yticks(centers, labels, fontsize=8)
        axes.tick_params(axis="y", length=0)

        limits = (0, (start_s + last_s or 1) / scale)
        axes.set(xlim=limits, ylim=(len(profiled), 0), xlabel=TIME_LABEL.format(unit))
        _shade_start(axes, over_time, start_s)
        axes.grid(visible=False)

    rows = [_replica_row(replica, start_s) for replica in profiled]
    return Plot(
        "replica-map",
        f"Busy share of each replica, {_replica_selection(len(profiled), up_count)}",
        "Dark: computing. Orange: waiting for a program to be compiled. Pale: up and idle. Blank: "
        "not there. A bar marks its last answer, a cross when it was lost.",
        svg("replica-map", draw, 0.75 + 0.19 * max(len(profiled), 2)),
        (
            "replica",
            "node",
            "came up",
            "up for",
            "busy share",
            "last answer before its end",
            "went",
        ),
        tuple(rows),
    )


def _busy_picture(replicas: Sequence[Replica]) -> Series:
    """Returns an RGBA bitmap [replica, span, 4]: the busier, the more opaque.

    The colour is that of what took longer, work or compilation.
    """
    # NumPy reads None, where a replica was not up, as NaN
    busy = np.array([replica["busy_over_time"] for replica in replicas], float)
    compiling = np.zeros(busy.shape)
    for row, replica in enumerate(replicas):
        # reports of earlier versions have no compilation over time
        if replica.get("compiling_over_time") is not None:
            compiling[row] = np.nan_to_num(np.array(replica["compiling_over_time"], float))

    occupied = np.minimum(np.nan_to_num(busy) + compiling, 1.0)
    picture = np.empty((*busy.shape, 4))
    picture[..., :3] = BUSY_RGB
    picture[compiling > np.nan_to_num(busy), :3] = COMPILING_RGB
    picture[..., 3] = np.where(np.isnan(busy), 0.0, IDLE_ALPHA + (1 - IDLE_ALPHA) * occupied)
    return picture


def _rate_of_new_series(over_time: OverTime, name: str) -> Series:
    """Returns `per_s` of a series that reports of earlier versions do not have: zeros there."""
    if name in over_time:
        return per_s(over_time, name)
    return np.zeros(len(over_time["s"]))


def _draw_last_moment(
    axes: Axes, replica: Replica, height: float, scale: float, start_s: float
) -> None:
    """Marks the moment when a replica was lost, or its last answer."""
    if replica["lost"] is not None:
        moment_s = replica["since_s"] + replica["up_s"]
        marker = "x"
        color = BAD
    else:
        moment_s = replica["last_answer_s"]
        marker = "|"
        color = INK
    moment = (start_s + moment_s) / scale
    axes.plot([moment], [height], marker, color=color, clip_on=False)


def _replica_selection(plotted: int, up_count: int) -> str:
    """Returns in words which replicas are plotted of those that were up."""
    if plotted == 1:
        return "the only one"
    if plotted < up_count:
        return f"the {plotted} least busy of {up_count:,}"
    return f"all {plotted}"


def _replica_row(replica: Replica, start_s: float) -> tuple[str, ...]:
    until_s = replica["since_s"] + replica["up_s"]
    node = ""
    if replica["info"]:
        node = _short(replica["info"]["node"])
    end = ""
    if replica["lost"] is not None:
        end = "lost"
    elif replica["retired"] is not None:
        end = "let go"
    return (
        _short(replica["name"]),
        node,
        duration(start_s + replica["since_s"]),
        duration(replica["up_s"]),
        percent(replica["utilisation"]),
        duration(until_s - replica["last_answer_s"]),
        end,
    )


def tail(replicas: Sequence[Replica], end_s: float) -> Plot | None:
    """Plots how many replicas still had work before the end of the run, at `end_s`.

    Returns None for fewer than two replicas, or when none ran out of work early.
    """
    # seconds before the end when a replica ran out of work, descending
    before_end_s = [end_s - idle_since_s for idle_since_s, _ in idle_tails(replicas)]
    if len(before_end_s) < 2 or before_end_s[0] <= 0:
        return None
    longest_s = before_end_s[0]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        scale, unit = time_unit(longest_s)
        # the last edge is just after the end, so that all edges ascend
        edges_s = -np.array([longest_s * 1.1, *before_end_s, -longest_s * 1e-9])
        with_work = np.arange(len(before_end_s), -1, -1)
        axes.stairs(with_work, edges_s / scale, fill=True, color=IN, alpha=0.4)
        axes.set(
            xlabel=f"{unit} before the end",
            ylabel="replicas with work",
            xlim=(edges_s[0] / scale, 0),
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
        count_axis(axes, integer=True)

    count = len(before_end_s)
    indices = {max(0, math.ceil(count * fraction) - 1) for fraction in TAIL_FRACTIONS}
    rows = []
    for index in sorted(indices):
        without_work = f"{index + 1:,} of {count:,}"
        rows.append((without_work, duration(before_end_s[index])))
    return Plot(
        "tail",
        "The tail: replicas that still had work",
        "A long low tail means that a few late rows kept the others waiting: put long rows first, "
        "or take fewer replicas.",
        svg("tail", draw, 1.9),
        ("replicas without work", "from so long before the end"),
        tuple(rows),
    )


# -- failures --------------------------------------------------------------------------------------


def failures(over_time: OverTime, start_s: float = 0.0) -> Plot | None:
    """Plots failed rows, requests that ran again and lost replicas over time.

    Returns None when there were none.
    """
    names = [name for name in FAILURE_TITLES if any(over_time[name])]
    if not names:
        return None

    def draw(figure: Figure) -> None:
        for number, name in enumerate(names, 1):
            color = BAD
            if name == "retries":
                color = OUT
            axes = figure.add_subplot(len(names), 1, number)
            _stairs(axes, np.array(over_time[name], float), over_time, color, start_s)
            axes.set(title=FAILURE_TITLES[name], ylabel=FAILURE_UNITS[name])
            count_axis(axes, integer=True)
            if number < len(names):
                _hide_time_labels(axes)

    spans = join_spans(over_time)
    header = ["until"]
    columns = []
    for name in names:
        header.append(FAILURE_TITLES[name].lower())
        columns.append([f"{count:,.0f}" for count in spans[name]])
    return Plot(
        "failures",
        "Failures, retries and losses over time",
        f"How many in each {duration(over_time['s'][0])}. A lost replica's requests run again; a "
        "burst points at a node or a file.",
        svg("failures", draw, 0.7 + 1.1 * len(names)),
        tuple(header),
        _with_times(spans, zip(*columns, strict=True), start_s),
    )


# -- common to all plots ---------------------------------------------------------------------------


def _stairs(
    axes: Axes,
    values: Series,
    over_time: OverTime,
    color: str,
    start_s: float,
    label: str | None = None,
) -> None:
    """Draws one level per span of time, filled down to zero; spans without a value are gaps.

    The time axis begins with the job, `start_s` before the first span.
    """
    scale, unit = time_unit(start_s + over_time["s"][-1])
    edges = (start_s + np.array([0.0, *over_time["s"]])) / scale
    axes.stairs(values, edges, fill=True, color=color, alpha=0.25)
    axes.stairs(values, edges, baseline=None, color=color, linewidth=1.4, label=label)
    axes.set_xlim(0, edges[-1] or 1)
    axes.set_ylim(0)
    axes.set_xlabel(TIME_LABEL.format(unit))


def _shade_start(axes: Axes, over_time: OverTime, start_s: float) -> None:
    """Shades the time before the first batch: planning, starting Ray, loading the model."""
    scale, _ = time_unit(start_s + over_time["s"][-1])
    if start_s > 0:
        axes.axvspan(0, start_s / scale, color=CALM, alpha=PHASE_ALPHA, linewidth=0)


def _shade_idle_phases(axes: Axes, over_time: OverTime, start_s: float) -> None:
    """Shades the start, and the spans in which replicas compile for most of their time."""
    _shade_start(axes, over_time, start_s)
    if "compile_s" not in over_time:
        return
    scale, _ = time_unit(start_s + over_time["s"][-1])
    edges = (start_s + np.array([0.0, *over_time["s"]])) / scale
    is_compiling = share(over_time["compile_s"], over_time["up_s"]) > 0.5
    for span in np.flatnonzero(is_compiling):
        axes.axvspan(edges[span], edges[span + 1], color=OUT, alpha=PHASE_ALPHA, linewidth=0)


def _hide_time_labels(axes: Axes) -> None:
    """Hides the labels of the time axis; the axes below have the same."""
    axes.tick_params(labelbottom=False)
    axes.set_xlabel("")


def _with_times(
    over_time: OverTime, rows: Iterable[Sequence[str]], start_s: float
) -> tuple[tuple[str, ...], ...]:
    """Returns the rows of a table, each with the end of its span in front."""
    rows_with_times = []
    for end_s, row in zip(over_time["s"], rows, strict=True):
        rows_with_times.append((duration(start_s + end_s), *row))
    return tuple(rows_with_times)


def _short(name: object) -> str:
    return bare(name, NAME_CHARS)
