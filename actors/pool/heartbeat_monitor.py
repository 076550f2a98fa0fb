"""Detects hung replicas by their heartbeats.

A replica is monitored from the start of its process and polled at intervals, one request at a time.
It hangs if its engine has been in one step for longer than the limit, or if it has not answered for
that time, which means that its process does not run. Loading and idling have no limit, and a
compilation may take longer than a step. Does not depend on Ray: the pool sends the
requests and replaces replicas that hang.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.protocol.events import Heartbeat

COMPILATION_FACTOR = 6  # a compilation may take this many times as long as a step
MAX_INTERVAL_S = 30.0
START_INTERVAL_S = 2.0  # between requests to replicas that load or compile: users watch them


@dataclass(slots=True)
class _Schedule:
    """When a replica is polled."""

    due_s: float
    heartbeat: Heartbeat  # the last one
    requested_s: float | None = None  # None: no request is open


class HeartbeatMonitor:
    """Decides which replicas to poll, and interprets their heartbeats."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`timeout_s` limits a step of the engine, and the answer to a request."""
        self._timeout_s = timeout_s
        self._clock = clock
        self._interval_s = min(MAX_INTERVAL_S, timeout_s / 4)
        self._start_s = min(START_INTERVAL_S, self._interval_s)
        self._schedules: dict[str, _Schedule] = {}
        self._next_turn_s = clock()

    def begin(self, replica: str) -> None:
        """Monitors a replica whose process lives."""
        self._schedules[replica] = _Schedule(self._clock() + self._start_s, Heartbeat("loading"))

    def forget(self, replica: str) -> None:
        """Stops monitoring a replica."""
        self._schedules.pop(replica, None)

    def turn(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Returns the replicas to poll now, and (replica, reason) of those that do not answer.

        Cheap when called often.
        """
        due: list[str] = []
        silent: list[tuple[str, str]] = []
        now_s = self._clock()
        if now_s < self._next_turn_s:
            return due, silent

        self._next_turn_s = now_s + min(self._start_s / 2, self._interval_s / 4)
        for name, schedule in self._schedules.items():
            if schedule.requested_s is None:
                if schedule.due_s <= now_s:
                    schedule.requested_s = now_s
                    due.append(name)
                continue
            silent_s = now_s - schedule.requested_s
            if silent_s > self._timeout_s:
                reason = f"its process has not answered for {silent_s:.0f} s, {self._limit()}"
                silent.append((name, reason))
        return due, silent

    def received(self, replica: str, heartbeat: Heartbeat) -> str | None:
        """Records the answer to a request; returns why the replica hangs, or None."""
        schedule = self._schedules.get(replica)
        if schedule is None:
            return None
        schedule.requested_s = None
        schedule.heartbeat = heartbeat
        is_starting = heartbeat.doing in {"loading", "compilation"}
        schedule.due_s = self._clock() + (self._start_s if is_starting else self._interval_s)

        if heartbeat.doing == "step":
            limit_s = self._timeout_s
        elif heartbeat.doing == "compilation":
            limit_s = self._timeout_s * COMPILATION_FACTOR
        else:
            return None
        if heartbeat.for_s <= limit_s:
            return None
        return (
            f"its engine has been at one {heartbeat.doing} for {heartbeat.for_s:.0f} s, "
            f"{self._limit()}"
        )

    def answered(self, replica: str) -> None:
        """Records that a replica came up or answered a batch: it loads and compiles no more."""
        schedule = self._schedules.get(replica)
        if schedule is not None:
            schedule.heartbeat = Heartbeat("idle")

    def heartbeats(self) -> list[Heartbeat]:
        """Returns the last heartbeat of every monitored replica; any thread may call it."""
        return [schedule.heartbeat for schedule in list(self._schedules.values())]

    def _limit(self) -> str:
        return f"--step-timeout-s is {self._timeout_s:g}"
