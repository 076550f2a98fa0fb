"""What happens to replicas, as the pool tells it and dispatch hears it. Standard library and messages only."""

from dataclasses import dataclass

from actors.messages import BatchResult, ReplicaInfo


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A replica is up; `replica` is a name that no other replica of the run had or will have."""

    replica: str
    info: ReplicaInfo | None = None


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica is gone for good with all batches it held. Another one may come in its place, under another name."""

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A replica answered a batch."""

    replica: str
    result: BatchResult


Event = ReplicaReady | ReplicaLost | BatchDone
