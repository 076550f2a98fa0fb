"""The head of the Ray cluster → which nodes it takes back, and whether it is still there.

A question to a head that is gone blocks for as long as Ray hopes for its return, and then Ray ends
the process. So a thread of its own asks, and nobody waits for it. Knows no Ray: what is asked is
handed in.
"""

import threading
import time
from collections.abc import Callable

from actors.protocol.errors import ClusterLostError


class GcsMonitor:
    """Asks now and then. Close it before the connection that `ask` uses."""

    def __init__(
        self,
        ask: Callable[[], set[str]],
        interval_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` returns the ids of the nodes that the cluster takes back soon.

        The first time it is asked here and now.

        A head that has not answered a question for `patience_s` is gone.
        """
        self._ask, self._interval_s, self._patience_s, self._clock = (
            ask,
            interval_s,
            patience_s,
            clock,
        )
        self._asked_s = clock()  # when the last question that was answered was asked
        self.draining = ask()
        self._at_once, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="GCS monitor", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises ClusterLostError when the head has been silent for too long."""
        # the open question was asked an interval later
        silent_s = self._clock() - self._asked_s - self._interval_s
        if silent_s > self._patience_s:
            raise ClusterLostError(
                f"the head of the Ray cluster has not answered for {silent_s:.0f} s; committed "
                "shards are kept, the same command "
                "continues the run once there is a cluster again"
            )

    def answered_since(self, moment_s: float) -> bool:
        """Whether the head answered a question asked after `moment_s`.

        If not, it is asked at once.
        """
        if self._asked_s >= moment_s:
            return True
        self._at_once.set()
        return False

    def close(self) -> None:
        """Asks no more.

        An open question is waited for only for a moment: it may never be answered.
        """
        self._closed = True
        self._at_once.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            self._at_once.wait(self._interval_s)
            self._at_once.clear()
            if self._closed:
                return
            asked_s = self._clock()
            self.draining = self._ask()
            self._asked_s = asked_s
