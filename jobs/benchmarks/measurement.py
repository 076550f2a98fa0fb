"""Timing of repeated calls, and differences of an engine's counters."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from actors.protocol.messages import ReplicaStats


def seconds_of(call: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def best_seconds(call: Callable[[], object], tries: int = 10) -> float:
    """Returns the seconds of the fastest of several calls, after one that compiles."""
    call()
    return min(seconds_of(call) for _ in range(tries))


def increase(before: ReplicaStats, after: ReplicaStats) -> ReplicaStats:
    """Returns the difference of all counters."""
    differences: dict[str, Any] = {}
    for field in dataclasses.fields(ReplicaStats):
        differences[field.name] = getattr(after, field.name) - getattr(before, field.name)
    return ReplicaStats(**differences)
