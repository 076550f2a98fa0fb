"""Series, bins and words for plots and tables, from the figures of report.json."""

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


def share(part: Iterable[float], total: Iterable[float]) -> Series:
    """Returns part / total, span by span; NaN where the total is 0."""
    parts = np.array(list(part), float)
    totals = np.array(list(total), float)
    shares: Series = np.full(len(totals), math.nan)
    np.divide(parts, totals, out=shares, where=totals > 0)
    return shares


def joined(over: Over) -> Over:
    """Returns the same sums over at most `TABLE_ROWS` longer spans."""
    size = -(-len(over["s"]) // TABLE_ROWS)
    starts = range(0, len(over["s"]), size)
    spans = [slice(start, start + size) for start in starts]
    sums = {}
    for name, values in over.items():
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
    """Returns a bin in words."""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


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
    """Returns a time in words that fit its size: 0.25 s, 12 s, 3 min 20 s, 5 h 03 min."""
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
    """Returns the seconds of the unit that a time axis of this length has, and its name."""
    if longest_s < 180:
        return 1.0, "seconds"
    if longest_s < 3 * 3600:
        return 60.0, "minutes"
    return 3600.0, "hours"
