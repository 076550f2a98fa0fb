"""Figures of report.json → series, bins and words for the report's plots and tables.

Knows neither plots nor pages.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dispatch.replicas import NO_WORK_LEFT

TABLE_ROWS = 24  # of the table beside a plot over time: spans are joined until they are so few
# report.json's `over_time`: ends of spans in `s`, and sums of each span
Over = Mapping[str, Sequence[float]]
Series = NDArray[np.float64]


def per_s(over: Over, name: str) -> Series:
    """Returns the sums of a series as rates."""
    return share(over[name], np.diff([0.0, *over["s"]]))


def padding(over: Over) -> Series:
    """Returns which share of computed prompt positions held no token.

    NaN where nothing was computed.
    """
    return 1 - share(over["prefill_tokens"], over["prefill_positions"])


def reuse(over: Over) -> Series:
    """Returns which share of read tokens was not computed again; NaN where nothing was read."""
    return share(over["cached"], over["prompt"])


def share(part: Iterable[float], whole: Iterable[float]) -> Series:
    """Returns part / whole, span by span; NaN where there is no whole."""
    return np.array(
        [
            part_of / all_of if all_of > 0 else math.nan
            for part_of, all_of in zip(part, whole, strict=True)
        ],
        float,
    )


def joined(over: Over) -> Over:
    """Returns the same sums over at most `TABLE_ROWS` longer spans."""
    size = -(-len(over["s"]) // TABLE_ROWS)
    starts = range(0, len(over["s"]), size)
    return {
        name: [
            values[start : start + size][-1] if name == "s" else sum(values[start : start + size])
            for start in starts
        ]
        for name, values in over.items()
    }


def quantile(histogram: Sequence[Mapping[str, int]], at: float) -> int:
    """Returns the length that the share `at` of all samples does not exceed, as far as bins tell."""
    sums = itertools.accumulate(each["rows"] for each in histogram)
    wanted = at * sum(each["rows"] for each in histogram)
    return next(
        each["to"] for each, so_far in zip(histogram, sums, strict=True) if so_far >= wanted
    )


def bin_label(low: int, high: int) -> str:
    """Returns a bin in words."""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def idle_tails(replicas: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Returns when each replica that saw the end of the work ran dry, and for how long it was up after that; seconds."""
    seen = (
        row for row in replicas if row["lost"] is None and row["retired"] in {None, NO_WORK_LEFT}
    )
    return sorted(
        (row["last_answer_s"], row["since_s"] + row["up_s"] - row["last_answer_s"]) for row in seen
    )


def percent(value: float) -> str:
    """Returns a share as a percentage of two or three places; a dash for none."""
    if math.isnan(value):
        return "–"
    places = 0 if value in {0, 1} or 0.1 <= value < 0.9995 else 1 if value >= 0.001 else 3
    return f"{100 * value:.{places if value < 0.99 else 1 if value < 1 else 0}f}\u00a0%"


def duration(seconds: float) -> str:
    """Returns a time in words that fit its size: 0.25 s, 12 s, 3 min 20 s, 5 h 03 min."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours < 100 else f"{hours:,} h"


def compact(value: float) -> str:
    """Returns a number in few characters: 950, 1.2k, 30M."""
    for size, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.3g}"


def size_in_bytes(size: int) -> str:
    """Returns a size in the unit that fits it: 950 B, 12 kB, 3.4 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.3g} {name}"
    return f"{size} B"


def time_unit(longest_s: float) -> tuple[float, str]:
    """Returns the seconds of the unit that a time axis of this length has, and its name."""
    if longest_s < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest_s < 3 * 3600 else (3600.0, "hours")
