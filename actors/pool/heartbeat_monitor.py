"""Pulses of replicas → which of them hang.

Knows no Ray: who asks, and what becomes of a hung replica, is the pool's business.

A replica is watched from the moment its process lives. It is asked now and then, one question at a
time, and hangs when its engine has been at one step for longer than a step may take, or when the
question itself is not answered for as long: then its process stands still. Loading and waiting for
work take as long as they take. A compilation may take longer than a step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.protocol.events import Heartbeat

COMPILATION_SHARE = 6  # a compilation may take this many times as long as a step
MOST_INTERVAL_S = 30.0


@dataclass(slots=True)
class _Watched:
    due_s: float
    asked_s: float | None = None  # None: no question is open


class HeartbeatMonitor:
    """Whom to ask when, and what the answers mean."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`timeout_s`: how long an engine may go without finishing a step, and a process without answering."""
        self._timeout_s, self._clock = timeout_s, clock
        self._interval_s = min(MOST_INTERVAL_S, timeout_s / 4)
        self._watched: dict[str, _Watched] = {}
        self._next_s = clock()

    def begin(self, replica: str) -> None:
        """Its process lives: from now on it has to answer."""
        self._watched[replica] = _Watched(self._clock() + self._interval_s)

    def forget(self, replica: str) -> None:
        """It is gone."""
        self._watched.pop(replica, None)

    def turn(self) -> tuple[list[str], list[tuple[str, str]]]:
        """Returns (whom to ask now, who hangs and why); cheap when called often."""
        now_s = self._clock()
        if now_s < self._next_s:
            return [], []
        self._next_s = now_s + self._interval_s / 4
        ask: list[str] = []
        silent: list[tuple[str, str]] = []
        for name, watched in self._watched.items():
            if watched.asked_s is None and watched.due_s <= now_s:
                watched.asked_s = now_s
                ask.append(name)
            elif watched.asked_s is not None and now_s - watched.asked_s > self._timeout_s:
                silent_s = now_s - watched.asked_s
                reason = f"its process has not answered for {silent_s:.0f} s, {self._allowed()}"
                silent.append((name, reason))
        return ask, silent

    def answered(self, replica: str, heartbeat: Heartbeat) -> str | None:
        """Takes an answer in; returns why the replica hangs, or None."""
        watched = self._watched.get(replica)
        if watched is None:
            return None
        watched.asked_s, watched.due_s = None, self._clock() + self._interval_s
        limit_s = {"step": self._timeout_s, "compilation": self._timeout_s * COMPILATION_SHARE}.get(
            heartbeat.doing
        )
        if limit_s is None or heartbeat.for_s <= limit_s:
            return None
        return f"its engine has been at one {heartbeat.doing} for {heartbeat.for_s:.0f} s, {self._allowed()}"

    def _allowed(self) -> str:
        return f"--step-timeout-s is {self._timeout_s:g}"
