"""Events between dispatch and the pool: their defaults, and the same after pickling."""

import dataclasses
import pickle
from typing import Any, get_args

import pytest

from actors.protocol.events import (
    Assignment,
    BatchDone,
    Event,
    Heartbeat,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import (
    Batch,
    BatchResult,
    Completion,
    ReplicaStats,
    Request,
    RowRef,
    token_ids,
)
from actors.protocol.sampling import Sampling

BATCH = Batch((Request(RowRef(0, 1), token_ids([5, 6]), Sampling(4)),), prefix_key=b"\x05")
ASSIGNMENT = Assignment(7, BATCH, "replica-0")
RESULT = BatchResult((Completion(RowRef(0, 1)),), ReplicaStats(requests=1))
EVENTS: list[Any] = [
    ReplicaReady("replica-0"),
    ReplicaLost("replica-0", "its process died", "node"),
    ReplicaLeaving("replica-0", "the machine is reclaimed"),
    BatchDone(ASSIGNMENT, RESULT),
]


def test_every_event_has_an_example() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", [*EVENTS, ASSIGNMENT, Heartbeat("step", 1.5)])
def test_event_survives_pickling(event: Any) -> None:
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("event", [*EVENTS, ASSIGNMENT, Heartbeat("idle")])
def test_event_is_immutable(event: Any) -> None:
    name = dataclasses.fields(event)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)


def test_lost_replica_is_blamed_by_default() -> None:
    """A loss of unknown cause counts against the rows that the replica held."""
    assert ReplicaLost("replica-0", "hung").blame == "replica"


def test_ready_replica_may_lack_information() -> None:
    assert ReplicaReady("replica-0").info is None


def test_heartbeat_starts_at_zero_seconds() -> None:
    assert Heartbeat("compilation").for_s == 0.0
