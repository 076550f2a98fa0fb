"""What dispatch needs of replicas, and to what it reports: protocols only.

The pool, its fakes and `Progress` implement them.
"""

from collections.abc import Sequence
from typing import Protocol

from actors.protocol.events import Assignment, Event
from actors.protocol.messages import ReplicaInfo, ReplicaStats

NO_WORK_LEFT = "no work was left for it"  # why a replica is let go at the end of a run


class Replicas(Protocol):
    """What dispatch needs of the replicas."""

    @property
    def up(self) -> int:
        """Replicas that can take batches now."""

    @property
    def wanted(self) -> int:
        """Replicas the run would use if the cluster had room."""

    def submit(self, assignment: Assignment) -> None:
        """Hands a batch to its replica without waiting.

        Its answer, or the replica's loss, comes as an event.
        """

    def want(self, count: int) -> None:
        """Reduces the replicas wanted to `count`; replicas beyond that are not started any more."""

    def retire(self, replica: str) -> None:
        """Ends a replica that holds no batch; no event follows."""

    def abandon(self, replica: str) -> None:
        """Ends a replica whatever it holds, without a replacement; no event follows."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what happened since the last call; waits up to `timeout_s` when nothing did.

        Raises:
            ModelError: no replica can ever work; the job stops.
        """


class DispatchWatcher(Protocol):
    """What dispatch reports to; `pipeline/monitoring/progress.py` implements it."""

    def replica_ready(self, replica: str, info: ReplicaInfo | None) -> None:
        """A replica came up."""

    def replica_lost(self, replica: str, reason: str) -> None:
        """A replica is gone."""

    def replica_retired(self, replica: str, reason: str) -> None:
        """A replica was let go; it held nothing."""

    def replica_stats(self, replica: str, stats: ReplicaStats) -> None:
        """The counters of a replica, as of its last answer."""

    def batch_retried(self, requests: int) -> None:
        """`requests` requests were queued again."""

    def batches_in_flight(self, count: int) -> None:
        """`count` batches are with replicas now."""
