"""Differences of an engine's counters."""

import dataclasses
from typing import Any

from actors.protocol.messages import ReplicaStats


def increase(before: ReplicaStats, after: ReplicaStats) -> ReplicaStats:
    """Returns the difference of all counters."""
    differences: dict[str, Any] = {}
    for field in dataclasses.fields(ReplicaStats):
        differences[field.name] = getattr(after, field.name) - getattr(before, field.name)
    return ReplicaStats(**differences)
