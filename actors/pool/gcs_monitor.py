"""Polls the head of the Ray cluster (GCS): which nodes it takes back, and whether it still answers.

A request to a head that is gone blocks for as long as Ray hopes for its return, and then Ray ends
the process. So a thread of its own sends the requests, and nothing waits for it. Does not depend on
Ray: the request is an argument.
"""

import threading
import time
from collections.abc import Callable

from actors.protocol.errors import ClusterLostError


class GcsMonitor:
    """Polls in a thread. Close it before the connection that `request` uses."""

    def __init__(
        self,
        request: Callable[[], set[str]],
        interval_s: float,
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sends the first request at once and waits for it.

        Args:
            request: returns the ids of the nodes that the cluster takes back soon.
            interval_s: between requests; at most a quarter of `silence_s`.
            silence_s: a head whose last answer belongs to a request that was sent so long ago is
                gone.
            clock: seconds, monotonic.
        """
        self._request = request
        self._interval_s = min(interval_s, silence_s / 4)
        self._silence_s = silence_s
        self._clock = clock
        self._requested_s = clock()  # when the last request that was answered was sent
        self.draining = request()
        self._wake_up = threading.Event()
        self._is_closed = False
        self._is_lost = False
        self._thread = threading.Thread(target=self._run, name="GCS monitor", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises ClusterLostError when the head has not answered for too long."""
        silent_s = self._clock() - self._requested_s
        self._is_lost = silent_s > self._silence_s
        if self._is_lost:
            raise ClusterLostError(
                f"the head of the Ray cluster has not answered for {silent_s:.0f} s; committed "
                "shards are kept, the same command continues the run once there is a cluster again"
            )

    def answered_since(self, moment_s: float) -> bool:
        """Returns whether a request sent after `moment_s` was answered; if not, sends one now."""
        if self._requested_s >= moment_s:
            return True
        self._wake_up.set()
        return False

    def close(self) -> None:
        """Stops polling.

        Waits for an open request only for a moment: it may never be answered. Does not wait for a
        head that is lost.
        """
        self._is_closed = True
        self._wake_up.set()
        if not self._is_lost:
            self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            self._wake_up.wait(self._interval_s)
            self._wake_up.clear()
            if self._is_closed:
                return
            requested_s = self._clock()
            self.draining = self._request()
            self._requested_s = requested_s
