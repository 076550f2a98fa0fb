"""Replicas coming, answering and going → what each did with its time, for the counters shown and for the report.

Times are seconds since the run began. Knows no rows and no clock.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

from actors.protocol.messages import ReplicaInfo, ReplicaStats
from pipeline.monitoring.deprecated_keys import add_deprecated_keys
from pipeline.monitoring.timeline import Timeline

MOST_PROFILES = 40  # replicas whose busy time over time is reported: the least busy ones


@dataclass(slots=True)
class _Use:
    """What is known of one replica: when it came and went, and its counters as of its last answer."""

    since_s: float
    info: ReplicaInfo | None
    answered_s: float  # its last answer; before the first one, when it came
    until_s: float | None = None
    reason: str | None = None  # why it was lost
    retired: str | None = None  # why it was let go
    stats: ReplicaStats = field(default_factory=ReplicaStats)
    came_up: bool = False

    def up_s(self, now_s: float) -> float:
        return (self.until_s if self.until_s is not None else now_s) - self.since_s

    def utilisation(self, now_s: float) -> float:
        up_s = self.up_s(now_s)
        return min(1.0, self.stats.busy_s / up_s) if up_s > 0 else 0.0


class ReplicaUse:
    """All replicas of a run, also those that are gone."""

    def __init__(self, timeline: Timeline) -> None:
        """`timeline` receives losses, prefill positions and busy seconds, in all and by replica."""
        self._timeline = timeline
        self._uses: dict[str, _Use] = {}

    def ready(self, replica: str, info: ReplicaInfo | None, at_s: float) -> None:
        """A replica came up."""
        self._uses[replica] = _Use(at_s, info, at_s, came_up=True)

    def lost(self, replica: str, reason: str, at_s: float) -> None:
        """A replica is gone, perhaps before it came up."""
        use = self._uses.setdefault(replica, _Use(at_s, None, at_s))
        use.until_s, use.reason = at_s, reason
        self._timeline.add("losses", at_s)

    def retired(self, replica: str, reason: str, at_s: float) -> None:
        """A replica was let go."""
        if use := self._uses.get(replica):
            use.until_s, use.retired = at_s, reason

    def stats(self, replica: str, stats: ReplicaStats, at_s: float) -> None:
        """The counters of a replica, as of its last answer."""
        use = self._uses.get(replica)
        if use is None:
            return
        if stats.up_s >= use.stats.up_s:  # answers of one replica may overtake each other
            busy_s = stats.busy_s - use.stats.busy_s
            self._timeline.spread("busy_s", use.answered_s, at_s, busy_s)
            self._timeline.spread(f"busy_s of {replica}", use.answered_s, at_s, busy_s)
            for name in ("prefill_tokens", "prefill_positions"):
                self._timeline.spread(
                    name, use.answered_s, at_s, getattr(stats, name) - getattr(use.stats, name)
                )
            use.stats = stats
        use.answered_s = at_s

    def total(self) -> ReplicaStats:
        """Returns the counters of all replicas, added up."""
        every = [use.stats for use in list(self._uses.values())]
        return ReplicaStats(
            **{
                each.name: sum(getattr(stats, each.name) for stats in every)
                for each in fields(ReplicaStats)
            }
        )

    def counts(self) -> tuple[int, int]:
        """Returns how many replicas came up so far, and how many were lost, those included that never came up."""
        every = list(self._uses.values())
        return sum(1 for use in every if use.came_up), sum(
            1 for use in every if use.reason is not None
        )

    def hours(self, now_s: float) -> float:
        """Returns for how long replicas were up, added up."""
        return sum(use.up_s(now_s) for use in list(self._uses.values())) / 3600

    def up_s(self, now_s: float) -> list[float]:
        """Returns for each span of the timeline for how many seconds replicas were up in it, added up."""
        every = [use for use in self._uses.values() if use.up_s(now_s) > 0]
        return _by_span(
            self._timeline,
            now_s,
            lambda began, ended: sum(_overlap_s(use, began, ended) for use in every),
        )

    def report(self, now_s: float) -> list[dict[str, object]]:
        """Returns what each replica was and did, in the order in which they came."""
        came_up = [name for name, use in self._uses.items() if use.up_s(now_s) > 0]
        by_use = sorted(came_up, key=lambda name: self._uses[name].utilisation(now_s))
        shown = set(by_use[:MOST_PROFILES])
        return [
            self._report(name, use, now_s, profile=name in shown)
            for name, use in self._uses.items()
        ]

    def _report(self, name: str, use: _Use, now_s: float, *, profile: bool) -> dict[str, object]:
        return {
            "name": name,
            "info": asdict(use.info) if use.info else None,
            "since_s": use.since_s,
            "up_s": use.up_s(now_s),
            "utilisation": use.utilisation(now_s),
            "last_answer_s": use.answered_s,
            "lost": use.reason,
            "retired": use.retired,
            "stats": add_deprecated_keys(asdict(use.stats)),
            "busy_over_time": self._profile(name, use, now_s) if profile else None,
        }

    def _profile(self, name: str, use: _Use, now_s: float) -> list[float | None]:
        """Returns the busy share of each span; None where the replica was not up."""
        up_s = _by_span(self._timeline, now_s, lambda began, ended: _overlap_s(use, began, ended))
        busy_s = self._timeline.sums(f"busy_s of {name}", now_s)
        return [
            round(min(1.0, busy / up), 3) if up > 0 else None
            for busy, up in zip(busy_s, up_s, strict=True)
        ]


def _overlap_s(use: _Use, began_s: float, ended_s: float) -> float:
    until_s = ended_s if use.until_s is None else min(use.until_s, ended_s)
    return max(0.0, until_s - max(use.since_s, began_s))


def _by_span(timeline: Timeline, now_s: float, of: Callable[[float, float], float]) -> list[float]:
    ends = timeline.ends(now_s)
    return [of(began, ended) for began, ended in pairwise([0.0, *ends])]
