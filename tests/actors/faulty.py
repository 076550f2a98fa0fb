"""Replicas that break in real processes, for the tests of the pool.

`spec` says at which row and how.

{"row": 5, "how": "exit" | "kill" | "hog" | "hang" | "raise" | "slow"}  what happens at that row
{"sleep_s": 0.1}                                                  how long every batch takes
"""

import os
import resource
import signal
import threading
import time

from actors.protocol.events import Heartbeat
from actors.protocol.messages import Batch, BatchResult, ReplicaInfo, ReplicaStats
from tests.fakes import answer

HOG_BYTES = 1 << 40


class FaultyReplica:
    """Answers like the fakes do, until its row comes."""

    def __init__(self, spec: dict[str, object], name: str, _start: object = None) -> None:
        time.sleep(float(str(spec.get("load_s", 0))))
        self._spec, self._name, self._began_s = spec, name, time.monotonic()
        self._steps_since_s: float | None = None

    def info(self) -> ReplicaInfo:
        return ReplicaInfo(self._name, str(os.getpid()), ("cpu",), "1x1", 0, 0, 0, 1, 0.0)

    def stats(self) -> ReplicaStats:
        return ReplicaStats(up_s=time.monotonic() - self._began_s)

    def heartbeat(self) -> Heartbeat:
        since_s = self._steps_since_s
        return (
            Heartbeat("idle") if since_s is None else Heartbeat("step", time.monotonic() - since_s)
        )

    def run(self, batch: Batch) -> BatchResult:
        self._steps_since_s = time.monotonic()
        time.sleep(float(str(self._spec.get("sleep_s", 0))))
        if any(request.ref.row == self._spec.get("row") for request in batch.requests):
            self._break(str(self._spec["how"]))
        self._steps_since_s = None
        return BatchResult(tuple(map(answer, batch.requests)), self.stats())

    def _break(self, how: str) -> None:
        if how == "exit":
            os._exit(9)
        elif how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "hog":
            resource.setrlimit(resource.RLIMIT_AS, (HOG_BYTES >> 2, HOG_BYTES >> 2))
            bytearray(HOG_BYTES)
        elif how == "slow":
            time.sleep(float(str(self._spec.get("slow_s", 4))))
        elif how == "raise":
            raise RuntimeError("an illegal memory access was encountered")
        else:
            threading.Event().wait()
