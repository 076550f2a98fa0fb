"""Plots of report.json's figures: an SVG, a line of explanation and a table of the numbers each.

Amounts of data are bounded by report.json, whatever the size of the run. Knows no page and no
files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.drawing import BAD, CALM, IN, INK, OUT, WIDTH, Plot, count_axis, svg
from pipeline.report.figures import (
    Over,
    Series,
    bin_label,
    duration,
    idle_tails,
    joined,
    padding,
    per_s,
    percent,
    reuse,
    share,
    time_unit,
)
from pipeline.storage.redaction import redact_credentials

NAME_CHARS = 24
# of the map of replicas, which is a bitmap: legible on either background
BUSY_RGB = (0.16, 0.47, 0.84)
IDLE_ALPHA = 0.1


def throughput(over: Over) -> Plot:
    """Tokens per second, read and generated."""

    def draw(figure: Figure) -> None:
        for axes, name, title, color in (
            (figure.add_subplot(2, 1, 1), "prompt", "Read: prompts and scored texts", IN),
            (figure.add_subplot(2, 1, 2), "completion", "Generated", OUT),
        ):
            _stairs(axes, per_s(over, name), over, color)
            axes.set_title(title)
            count_axis(axes)
        figure.axes[0].tick_params(labelbottom=False)
        figure.axes[0].set_xlabel("")

    few = joined(over)
    rows = (
        (f"{read:,.0f}", f"{drawn:,.0f}")
        for read, drawn in zip(per_s(few, "prompt"), per_s(few, "completion"), strict=True)
    )
    return Plot(
        "throughput",
        "Tokens per second",
        "Tokens of answered rows, counted when their batch comes back, so short runs look stepped. "
        "Reused tokens count as read.",
        svg("throughput", draw, 3.3),
        ("until", "read per s", "generated per s"),
        _timed(few, rows),
    )


def shares(over: Over) -> Plot:
    """Padding and prefix reuse over time."""

    def draw(figure: Figure) -> None:
        for axes, values, title, color in (
            (
                figure.add_subplot(1, 2, 1),
                padding(over),
                "Padding, share of computed prompt positions",
                BAD,
            ),
            (figure.add_subplot(1, 2, 2), reuse(over), "Prefix reuse, share of read tokens", IN),
        ):
            _stairs(axes, values, over, color)
            axes.set_title(title)
            top = float(np.max(values, initial=0.0, where=~np.isnan(values)))
            axes.set_ylim(0, 1 if top > 0.5 else max(0.05, top * 1.25))
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))

    few = joined(over)
    rows = (
        (percent(lost), percent(gained))
        for lost, gained in zip(padding(few), reuse(few), strict=True)
    )
    return Plot(
        "shares",
        "Padding and prefix reuse",
        "Padding is computed for nothing: less is better. Tokens of equal beginnings are not "
        "computed again: more is better.",
        svg("shares", draw, 2.2),
        ("until", "padding", "prefix reuse"),
        _timed(few, rows),
    )


def lengths(
    name: str, title: str, histogram: Sequence[Mapping[str, int]], explanation: str
) -> Plot:
    """How long texts were, over doublings of length.

    Areas are numbers of samples, however wide report.json's bins are.
    """
    low, high, count = (
        np.array([each[key] for each in histogram], float) for key in ("from", "to", "rows")
    )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        # an axis of doublings that has a place for 0
        left, right = np.log2(np.maximum(low, 0.5)), np.log2(high + 1)
        axes.bar(
            left,
            count / (right - left),
            width=right - left,
            align="edge",
            color=IN if name == "prompt-lengths" else OUT,
        )
        doublings = range(max(0, math.floor(left[0])), math.ceil(right[-1]) + 1)
        shown = doublings[:: -(-len(doublings) // 9)]
        axes.set_xticks(
            [math.log2((1 << each) + 0.5) for each in shown], [f"{1 << each:,}" for each in shown]
        )
        axes.set(
            xlim=(left[0] - 0.15, max(right[-1], left[0] + 2) + 0.15), xlabel="tokens", yticks=[]
        )
        axes.spines.left.set_visible(False)

    rows = tuple(
        (
            bin_label(each["from"], each["to"]),
            f"{each['rows']:,}",
            percent(each["rows"] / float(count.sum())),
        )
        for each in histogram
    )
    return Plot(
        name,
        title,
        explanation,
        svg(name, draw, 2.2, WIDTH / 2),
        ("tokens", "samples", "share"),
        rows,
    )


def capacity(over: Over) -> Plot:
    """How many replicas were up, and how many of them computed."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        up = np.nan_to_num(per_s(over, "up_s"))
        _stairs(axes, up, over, CALM, "up")
        _stairs(axes, np.minimum(np.nan_to_num(per_s(over, "busy_s")), up), over, IN, "busy")
        axes.set_ylabel("replicas")
        count_axis(axes, whole=True)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)

    few = joined(over)
    columns = (per_s(few, "up_s"), per_s(few, "busy_s"), share(few["busy_s"], few["up_s"]))
    rows = (
        (f"{up:.1f}", f"{busy:.1f}", percent(min(both, 1.0)))
        for up, busy, both in zip(*columns, strict=True)
    )
    return Plot(
        "capacity",
        "Replicas up and busy",
        "What lies between the two was up and idle: waiting for batches, or for the last replica "
        "to finish.",
        svg("capacity", draw, 2.1),
        ("until", "up", "busy", "busy share"),
        _timed(few, rows),
    )


def replica_map(over: Over, replicas: Sequence[Mapping[str, Any]]) -> Plot | None:
    """How busy each replica was over time: of many, the least busy ones.

    None when there was none.
    """
    shown = [replica for replica in replicas if replica["busy_over_time"] is not None]
    if not shown:
        return None
    if len(shown) < (up := sum(row["up_s"] > 0 for row in replicas)):
        shown.sort(key=lambda row: row["utilisation"])
    now_s = over["s"][-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        scale, unit = time_unit(now_s)
        busy = np.array(
            [
                [math.nan if each is None else each for each in row["busy_over_time"]]
                for row in shown
            ],
            float,
        )
        picture = np.empty((*busy.shape, 4))
        picture[..., :3] = BUSY_RGB
        picture[..., 3] = np.where(
            np.isnan(busy), 0.0, IDLE_ALPHA + (1 - IDLE_ALPHA) * np.nan_to_num(busy)
        )
        right = over["s"][0] * busy.shape[1] / scale
        axes.imshow(picture, extent=(0, right, len(shown), 0), aspect="auto", interpolation="none")
        for place, row in enumerate(shown):
            gone = row["lost"] is not None
            at_s = row["since_s"] + row["up_s"] if gone else row["last_answer_s"]
            axes.plot(
                [at_s / scale],
                [place + 0.5],
                "x" if gone else "|",
                color=BAD if gone else INK,
                clip_on=False,
            )
        labels = [f"{_short(row['name'])}  {percent(row['utilisation'])}" for row in shown]
        axes.set_yticks([place + 0.5 for place in range(len(shown))], labels, fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set(
            xlim=(0, (now_s or 1) / scale), ylim=(len(shown), 0), xlabel=f"{unit} since the start"
        )
        axes.grid(visible=False)

    which = f"the {len(shown)} least busy of {up:,}" if len(shown) < up else f"all {len(shown)}"
    return Plot(
        "replica-map",
        f"Busy share of each replica, {which if len(shown) > 1 else 'the only one'}",
        "Dark: computing. Pale: up and idle. Blank: not there. A bar marks its last answer, a "
        "cross when it was lost.",
        svg("replica-map", draw, 0.75 + 0.19 * max(len(shown), 2)),
        (
            "replica",
            "node",
            "came up",
            "up for",
            "busy share",
            "last answer before its end",
            "went",
        ),
        tuple(map(_replica_row, shown)),
    )


def tail(replicas: Sequence[Mapping[str, Any]], now_s: float) -> Plot | None:
    """How many replicas still had work as the end came near.

    None for fewer than two, or when none ran dry early.
    """
    before = [now_s - dry_s for dry_s, _ in idle_tails(replicas)]
    if len(before) < 2 or before[0] <= 0:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        scale, unit = time_unit(before[0])
        at = np.array([-before[0] * 1.1, *(-each for each in before), before[0] * 1e-9])
        axes.stairs(np.arange(len(before), -1, -1), at / scale, fill=True, color=IN, alpha=0.4)
        axes.set(
            xlabel=f"{unit} before the end", ylabel="replicas with work", xlim=(at[0] / scale, 0)
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
        count_axis(axes, whole=True)

    places = sorted(
        {max(0, math.ceil(len(before) * at) - 1) for at in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)}
    )
    rows = tuple((f"{place + 1:,} of {len(before):,}", duration(before[place])) for place in places)
    return Plot(
        "tail",
        "The tail: replicas that still had work",
        "A long low tail means that a few late rows kept the others waiting: put long rows first, "
        "or take fewer replicas.",
        svg("tail", draw, 1.9),
        ("replicas without work", "from so long before the end"),
        rows,
    )


def failures(over: Over) -> Plot | None:
    """Failed rows, requests that ran again and lost replicas over time.

    None when there were none.
    """
    titles = {
        "errors": "Failed rows",
        "retries": "Requests queued again",
        "losses": "Replicas lost",
    }
    names = [name for name in titles if any(over[name])]
    if not names:
        return None

    def draw(figure: Figure) -> None:
        for place, name in enumerate(names, 1):
            axes = figure.add_subplot(len(names), 1, place)
            _stairs(axes, np.array(over[name], float), over, OUT if name == "retries" else BAD)
            axes.set_title(titles[name])
            count_axis(axes, whole=True)
            if place < len(names):
                axes.tick_params(labelbottom=False)
                axes.set_xlabel("")

    few = joined(over)
    rows = zip(*([f"{value:,.0f}" for value in few[name]] for name in names), strict=True)
    return Plot(
        "failures",
        "Failures, retries and losses over time",
        f"How many in each {duration(over['s'][0])}. A lost replica's requests run again; a burst "
        "points at a node or a file.",
        svg("failures", draw, 0.7 + 1.1 * len(names)),
        ("until", *(titles[name].lower() for name in names)),
        _timed(few, rows),
    )


# -- shared drawing helpers ----------------------------------------------------------


def _stairs(axes: Axes, values: Series, over: Over, color: str, label: str | None = None) -> None:
    """One level per span of time, filled down to zero; spans without a value are gaps."""
    scale, unit = time_unit(over["s"][-1])
    edges = np.array([0.0, *over["s"]]) / scale
    axes.stairs(values, edges, fill=True, color=color, alpha=0.25)
    axes.stairs(values, edges, baseline=None, color=color, linewidth=1.4, label=label)
    axes.set_xlim(0, edges[-1] or 1)
    axes.set_ylim(0)
    axes.set_xlabel(f"{unit} since the start")


def _timed(over: Over, rows: Any) -> tuple[tuple[str, ...], ...]:
    return tuple((duration(end), *row) for end, row in zip(over["s"], rows, strict=True))


def _replica_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    until_s = row["since_s"] + row["up_s"]
    return (
        _short(row["name"]),
        _short(row["info"]["node"]) if row["info"] else "",
        duration(row["since_s"]),
        duration(row["up_s"]),
        percent(row["utilisation"]),
        duration(until_s - row["last_answer_s"]),
        "lost" if row["lost"] is not None else "let go" if row["retired"] is not None else "",
    )


def _short(name: object) -> str:
    text = redact_credentials(str(name))
    return text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1] + "…"
