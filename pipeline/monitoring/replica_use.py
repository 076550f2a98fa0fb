"""How replicas spend their time, for the counters of a snapshot and for the report.

Times are seconds since the run began.
"""

from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

from actors.protocol.messages import ReplicaInfo, ReplicaStats
from pipeline.monitoring.deprecated_keys import add_deprecated_keys
from pipeline.monitoring.timeline import Timeline

MAX_PROFILES = 40  # replicas whose busy time over time is reported: the least busy ones


@dataclass(slots=True)
class _Use:
    """One replica: when it came and went, and its counters as of its last answer."""

    since_s: float
    info: ReplicaInfo | None
    answered_s: float  # its last answer; before the first one, when it came
    until_s: float | None = None
    reason: str | None = None  # why it was lost
    retired: str | None = None  # why it was let go
    stats: ReplicaStats = field(default_factory=ReplicaStats)
    came_up: bool = False

    def up_s(self, now_s: float) -> float:
        if self.until_s is None:
            return now_s - self.since_s
        return self.until_s - self.since_s

    def utilisation(self, now_s: float) -> float:
        up_s = self.up_s(now_s)
        if up_s <= 0:
            return 0.0
        return min(1.0, self.stats.busy_s / up_s)


class ReplicaUse:
    """All replicas of a run, also those that are gone."""

    def __init__(self, timeline: Timeline) -> None:
        """`timeline` receives losses, prefill positions, and seconds of work and compilation."""
        self._timeline = timeline
        self._uses: dict[str, _Use] = {}

    def ready(self, replica: str, info: ReplicaInfo | None, at_s: float) -> None:
        """Records a replica that came up."""
        self._uses[replica] = _Use(at_s, info, at_s, came_up=True)
        if info is not None and at_s > 0:
            began_s = max(0.0, at_s - info.load_s)
            self._timeline.spread("load_s", began_s, at_s, at_s - began_s)

    def infos(self) -> list[ReplicaInfo]:
        """Returns the descriptions of all replicas that came up and have one.

        Threads of the writer call it: the copy is one step.
        """
        uses = list(self._uses.values())
        return [use.info for use in uses if use.info is not None]

    def lost(self, replica: str, reason: str, at_s: float) -> None:
        """Records a lost replica, which need not have come up."""
        use = self._uses.setdefault(replica, _Use(at_s, None, at_s))
        use.until_s = at_s
        use.reason = reason
        self._timeline.add("losses", at_s)

    def retired(self, replica: str, reason: str, at_s: float) -> None:
        """Records a retired replica."""
        use = self._uses.get(replica)
        if use is not None:
            use.until_s = at_s
            use.retired = reason

    def stats(self, replica: str, stats: ReplicaStats, at_s: float) -> float:
        """Records the counters of a replica, as of its last answer.

        Returns:
            The seconds since its answer before in which calls waited for a program.
        """
        compile_s = 0.0
        use = self._uses.get(replica)
        if use is None:
            return compile_s
        if stats.up_s >= use.stats.up_s:  # answers of one replica may overtake each other
            busy_s = stats.busy_s - use.stats.busy_s
            self._timeline.spread("busy_s", use.answered_s, at_s, busy_s)
            self._timeline.spread(f"busy_s of {replica}", use.answered_s, at_s, busy_s)
            compile_s = stats.compile_s - use.stats.compile_s
            self._timeline.spread("compile_s", use.answered_s, at_s, compile_s)
            self._timeline.spread(f"compile_s of {replica}", use.answered_s, at_s, compile_s)
            for name in ("prefill_tokens", "prefill_positions"):
                self._timeline.spread(
                    name, use.answered_s, at_s, getattr(stats, name) - getattr(use.stats, name)
                )
            use.stats = stats
        use.answered_s = at_s
        return compile_s

    def total(self) -> ReplicaStats:
        """Returns the counters of all replicas, added up."""
        stats = [use.stats for use in list(self._uses.values())]
        totals = {}
        for counter in fields(ReplicaStats):
            totals[counter.name] = sum(getattr(counters, counter.name) for counters in stats)
        return ReplicaStats(**totals)

    def counts(self) -> tuple[int, int]:
        """Returns how many replicas came up and how many were lost, loading ones included."""
        came_up = 0
        lost = 0
        for use in list(self._uses.values()):
            came_up += use.came_up
            lost += use.reason is not None
        return came_up, lost

    def slowest_load_s(self) -> float | None:
        """Returns how long the slowest replica loaded the model; None if none came up."""
        load_s = [use.info.load_s for use in self._uses.values() if use.info is not None]
        return max(load_s, default=None)

    def hours(self, now_s: float) -> float:
        """Returns for how long replicas were up, added up."""
        return sum(use.up_s(now_s) for use in list(self._uses.values())) / 3600

    def up_count(self) -> int:
        """Returns how many replicas are up."""
        return sum(1 for use in list(self._uses.values()) if use.until_s is None)

    def up_s(self, now_s: float) -> list[float]:
        """Returns the seconds that replicas were up in each span of the timeline, added up."""
        sums = [0.0] * len(self._timeline.ends(now_s))
        for use in self._uses.values():
            if use.up_s(now_s) > 0:
                for span, overlap_s in enumerate(self._overlaps_s(use, now_s)):
                    sums[span] += overlap_s
        return sums

    def report(self, now_s: float) -> list[dict[str, object]]:
        """Returns what each replica was and did, in the order in which they came."""
        by_utilisation = []
        for name, use in self._uses.items():
            if use.up_s(now_s) > 0:
                by_utilisation.append((use.utilisation(now_s), name))
        by_utilisation.sort(key=lambda pair: pair[0])
        profiled = {name for _, name in by_utilisation[:MAX_PROFILES]}

        reports = []
        for name, use in self._uses.items():
            reports.append(self._report(name, use, now_s, profile=name in profiled))
        return reports

    def _report(self, name: str, use: _Use, now_s: float, *, profile: bool) -> dict[str, object]:
        info = None
        if use.info is not None:
            info = asdict(use.info)
        busy_over_time = None
        compiling_over_time = None
        if profile:
            busy_over_time = self._profile("busy_s", name, use, now_s)
            compiling_over_time = self._profile("compile_s", name, use, now_s)
        return {
            "name": name,
            "info": info,
            "since_s": use.since_s,
            "up_s": use.up_s(now_s),
            "utilisation": use.utilisation(now_s),
            "last_answer_s": use.answered_s,
            "lost": use.reason,
            "retired": use.retired,
            "stats": add_deprecated_keys(asdict(use.stats)),
            "busy_over_time": busy_over_time,
            "compiling_over_time": compiling_over_time,
        }

    def _profile(self, series: str, name: str, use: _Use, now_s: float) -> list[float | None]:
        """Returns the share of a series in each span; None where the replica was not up."""
        shares: list[float | None] = []
        sums_s = self._timeline.sums(f"{series} of {name}", now_s)
        for span_s, span_up_s in zip(sums_s, self._overlaps_s(use, now_s), strict=True):
            if span_up_s > 0:
                shares.append(round(min(1.0, span_s / span_up_s), 3))
            else:
                shares.append(None)
        return shares

    def _overlaps_s(self, use: _Use, now_s: float) -> list[float]:
        """Returns the seconds that a replica was up in each span of the timeline."""
        overlaps_s = []
        for began_s, ended_s in pairwise([0.0, *self._timeline.ends(now_s)]):
            until_s = ended_s
            if use.until_s is not None:
                until_s = min(use.until_s, ended_s)
            overlaps_s.append(max(0.0, until_s - max(use.since_s, began_s)))
        return overlaps_s
