"""What passes between dispatch and the pool of replicas.

Standard library and messages only.
"""

from dataclasses import dataclass
from typing import Literal

from actors.protocol.messages import Batch, BatchResult, ReplicaInfo

Blame = Literal["replica", "node", "nobody"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a replica's engine is doing and for how many seconds.

    A step or a compilation that ends starts the count again.
    """

    doing: Literal["loading", "idle", "step", "compilation"]
    for_s: float = 0.0
    loaded: float = 0.0  # share of the bytes of the weights that are on the devices
    programs: int = 0  # requested so far
    compiled: int = 0  # of these


@dataclass(frozen=True, slots=True)
class Activity:
    """What the replicas do that load or compile, in words, and how many compile."""

    text: str = ""  # e.g. "loading 37 %, 2 compiling 3/9"; "" where all compute or idle
    doing: Literal["", "loading", "compiling"] = ""  # what the one does that has got least far
    compiling: int = 0  # replicas


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A replica is up; `replica` is a name that no other replica of the run had or will have."""

    replica: str
    info: ReplicaInfo | None = None


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """A replica is gone for good with all batches it held.

    Another one may come in its place, under another name.

    `blame` is the part to which the loss is attributed: "replica" (its process died or hung, maybe
    because of its rows), "node" (the machine was lost without notice, hardly because of its rows),
    "nobody" (the cluster took the machine back).
    """

    replica: str
    reason: str
    blame: Blame = "replica"


@dataclass(frozen=True, slots=True)
class ReplicaLeaving:
    """The cluster takes this replica's machine back soon.

    It may finish what it holds, but gets nothing more.
    """

    replica: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """A batch that a replica is to run; no other assignment of the run has its number."""

    number: int
    batch: Batch
    replica: str


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A replica answered the batch of an assignment."""

    assignment: Assignment
    result: BatchResult


Event = ReplicaReady | ReplicaLost | ReplicaLeaving | BatchDone
