"""Computes series and formats numbers for plots and tables, from the figures of report.json."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dispatch.replicas import NO_WORK_LEFT

TABLE_ROWS = 24  # at most, of the table beside a plot over time: longer runs have longer spans
# report.json's `over_time`: ends of spans in `s`, and sums of each span
OverTime = Mapping[str, Sequence[float]]
Series = NDArray[np.float64]


def per_s(over_time: OverTime, name: str) -> Series:
    """Returns the sums of a series as rates."""
    return share(over_time[name], np.diff([0.0, *over_time["s"]]))


def padding(over_time: OverTime) -> Series:
    """Returns the share of computed prompt positions that held no token.

    NaN where nothing was computed.
    """
    return 1 - share(over_time["prefill_tokens"], over_time["prefill_positions"])


def reuse(over_time: OverTime) -> Series:
    """Returns the share of read tokens that was not computed again; NaN where none was read."""
    return share(over_time["cached"], over_time["prompt"])


def share(part: Iterable[float], total: Iterable[float]) -> Series:
    """Returns part / total, span by span; NaN where the total is 0."""
    parts = np.array(list(part), float)
    totals = np.array(list(total), float)
    shares: Series = np.full(len(totals), math.nan)
    np.divide(parts, totals, out=shares, where=totals > 0)
    return shares


def join_spans(over_time: OverTime) -> OverTime:
    """Returns the same sums over at most `TABLE_ROWS` longer spans."""
    count = len(over_time["s"])
    size = math.ceil(count / TABLE_ROWS)
    starts = range(0, count, size)
    spans = [slice(start, start + size) for start in starts]
    sums = {}
    for name, values in over_time.items():
        if name == "s":
            sums[name] = [values[span][-1] for span in spans]
        else:
            sums[name] = [sum(values[span]) for span in spans]
    return sums


def quantile(histogram: Sequence[Mapping[str, int]], fraction: float) -> int:
    """Returns the upper end of the bin in which `fraction` of all samples is reached."""
    total = sum(length_bin["rows"] for length_bin in histogram)
    rows = 0
    for length_bin in histogram:
        rows += length_bin["rows"]
        if rows >= fraction * total:
            return length_bin["to"]
    raise ValueError(f"fraction must be at most 1, got {fraction}")


def bin_label(low: int, high: int) -> str:
    """Returns the label of a bin of lengths: 8, or 9–10."""
    if low == high:
        return f"{low:,}"
    return f"{low:,}–{high:,}"


def idle_tails(replicas: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Returns when each replica ran out of work, and for how long it was up after that, sorted.

    In seconds; of the replicas that were up when the work ended.
    """
    tails = []
    for replica in replicas:
        if replica["lost"] is None and replica["retired"] in {None, NO_WORK_LEFT}:
            last_answer_s = replica["last_answer_s"]
            end_s = replica["since_s"] + replica["up_s"]
            tails.append((last_answer_s, end_s - last_answer_s))
    return sorted(tails)


def percent(value: float) -> str:
    """Returns a share as a percentage of two or three places; a dash for none."""
    if math.isnan(value):
        return "–"
    if value in {0, 1} or value > 1 or 0.1 <= value < 0.99:
        places = 0
    elif value >= 0.001:
        places = 1
    else:
        places = 3
    return f"{100 * value:.{places}f}\u00a0%"


def duration(seconds: float) -> str:
    """Returns a duration in the units that fit it: 0.25 s, 12 s, 3 min 20 s, 5 h 03 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds_left:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 100:
        return f"{hours:,} h {minutes:02} min"
    return f"{hours:,} h"


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
    """Returns the unit of a time axis of this length: its seconds and its name."""
    if longest_s < 180:
        return 1.0, "seconds"
    if longest_s < 3 * 3600:
        return 60.0, "minutes"
    return 3600.0, "hours"
