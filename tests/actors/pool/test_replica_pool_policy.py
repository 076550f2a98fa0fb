"""Policy of the replica pool on a fake Ray: when actors are started, given up and replaced."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray._private.worker import global_worker
from ray.exceptions import ActorDiedError, NodeDiedError

from actors.pool.config import PoolConfig
from actors.pool.remote import Place
from actors.pool.replica_pool import ReplicaPool
from actors.protocol.errors import ClusterLostError, ModelError
from actors.protocol.events import (
    Assignment,
    BatchDone,
    Event,
    Heartbeat,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import Batch, BatchResult, ReplicaInfo, ReplicaStats

NOTHING = BatchResult((), ReplicaStats())


class FakeCall:
    """A method of a fake actor, and the last call of it."""

    def __init__(self) -> None:
        self.result: Future[Any] = Future()
        self.arguments: tuple[object, ...] = ()
        self.count = 0

    def remote(self, *arguments: object) -> "FakeCall":
        self.arguments = arguments
        self.result = Future()
        self.count += 1
        return self

    def future(self) -> "Future[Any]":
        return self.result


class FakeActor:
    """An actor whose calls return when the test says so."""

    def __init__(self) -> None:
        self.place = FakeCall()
        self.load = FakeCall()
        self.run = FakeCall()
        self.heartbeat = FakeCall()
        self.wait_for_programs = FakeCall()
        self.allow_compilation = FakeCall()


class FakeRay:
    """Remembers actors in the order in which they were started."""

    def __init__(self) -> None:
        self.actors: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.draining: set[str] = set()

    def remote(self) -> FakeActor:
        self.actors.append(FakeActor())
        return self.actors[-1]


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: fake)
    monkeypatch.setattr(ray, "kill", fake.killed.append)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(state, "get_draining_nodes", lambda: dict.fromkeys(fake.draining, 0))
    return fake


@pytest.fixture
def open_pool(fake_ray: FakeRay) -> Iterator[Callable[..., ReplicaPool]]:
    pools = []

    def start(**config: Any) -> ReplicaPool:
        standard = {"minimum": 1, "maximum": 1, "devices": 1, "drain_poll_s": 0.01}
        pools.append(ReplicaPool("spec", PoolConfig(**(standard | config))))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def come_up(pool: ReplicaPool, actor: FakeActor, number: int, node: str = "n0") -> None:
    """Lets an actor start and load."""
    actor.place.result.set_result(Place(node, "10.0.0.1", 1))
    pool.events(1.0)
    actor.load.result.set_result(ReplicaInfo(f"r{number}", node, (), "1x1", 0, 0, 0, 1, 0.0))
    assert turn_until(pool, ReplicaReady).replica == f"replica-{number}"


def turn_until(pool: ReplicaPool, kind: type[Event], timeout_s: float = 10.0) -> Any:
    """Returns the next event of a kind."""
    ends_s = time.monotonic() + timeout_s
    while time.monotonic() < ends_s:
        for event in pool.events(0.01):
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


def turn_for(pool: ReplicaPool, seconds: float) -> list[Event]:
    events: list[Event] = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        events += pool.events(0.01)
    return events


def wait_for_actors(pool: ReplicaPool, fake_ray: FakeRay, count: int) -> None:
    ends_s = time.monotonic() + 10.0
    while len(fake_ray.actors) < count:
        assert time.monotonic() < ends_s, f"{len(fake_ray.actors)} actors, expected {count}"
        pool.events(0.01)


def test_lost_head_is_logged_before_the_run_ends(fake_ray: FakeRay) -> None:
    logged: list[str] = []
    config = PoolConfig(1, 1, devices=1, drain_poll_s=0.01, head_silence_s=1e-6)

    with (
        ReplicaPool("spec", config, notify=lambda event, *_, **__: logged.append(event)) as pool,
        pytest.raises(ClusterLostError, match="the head of the Ray cluster has not answered"),
    ):
        turn_for(pool, 10.0)
    assert logged == ["cluster_lost"]
    assert fake_ray.killed == fake_ray.actors


def test_lost_node_of_the_driver_ends_the_run(
    fake_ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raylet = str(tmp_path / "raylet")
    monkeypatch.setattr(global_worker, "node", SimpleNamespace(raylet_socket_name=raylet))
    logged: list[str] = []

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(raylet)
        server.listen()
        pool = ReplicaPool(
            "spec",
            PoolConfig(1, 1, devices=1),
            notify=lambda event, *_, **__: logged.append(event),
        )
        assert turn_for(pool, 0.1) == []

    with pool, pytest.raises(ClusterLostError, match="the Ray node of this driver has died"):
        pool.events(0.0)
    assert logged == ["cluster_lost"]
    assert fake_ray.killed == fake_ray.actors


def test_drain_notice_starts_replacement_at_once(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool()
    come_up(pool, fake_ray.actors[0], 0)
    fake_ray.draining.add("n0")
    leaving = turn_until(pool, ReplicaLeaving)
    assert leaving.replica == "replica-0"
    wait_for_actors(pool, fake_ray, 2)
    assert fake_ray.killed == [], "the replica finishes what it holds"
    pool.retire("replica-0")
    turn_for(pool, 0.1)
    assert len(fake_ray.actors) == 2, "its replacement was started already"


def test_drained_node_of_loading_replica_loses_it_without_blame(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(backoff_s=60.0)
    fake_ray.actors[0].place.result.set_result(Place("n0", "10.0.0.1", 1))
    pool.events(1.0)
    fake_ray.draining.add("n0")
    assert turn_until(pool, ReplicaLost).blame == "nobody"
    wait_for_actors(pool, fake_ray, 2)


def test_loss_of_leaving_replica_is_nobodys_fault(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool()
    come_up(pool, fake_ray.actors[0], 0)
    pool.submit(Assignment(1, Batch(()), "replica-0"))
    fake_ray.draining.add("n0")
    turn_until(pool, ReplicaLeaving)
    fake_ray.actors[0].run.result.set_exception(ActorDiedError())
    assert turn_until(pool, ReplicaLost).blame == "nobody"


def test_losses_while_loading_stop_the_job(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(backoff_s=0.01, max_load_losses=3)
    for number in range(2):
        wait_for_actors(pool, fake_ray, number + 1)
        fake_ray.actors[number].place.result.set_exception(ActorDiedError())
        turn_until(pool, ReplicaLost)
    wait_for_actors(pool, fake_ray, 3)
    fake_ray.actors[2].place.result.set_exception(ActorDiedError())
    with pytest.raises(ModelError, match="3 were lost in a row"):
        turn_until(pool, ReplicaLost)


def test_losses_of_working_replicas_are_not_losses_while_loading(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    """A row has killed the replica that ran it; the replacement dies once while it loads."""
    pool = open_pool(backoff_s=0.01, max_load_losses=2)
    come_up(pool, fake_ray.actors[0], 0)
    pool.submit(Assignment(0, Batch(()), "replica-0"))
    fake_ray.actors[0].run.result.set_exception(ActorDiedError())
    turn_until(pool, ReplicaLost)
    wait_for_actors(pool, fake_ray, 2)
    fake_ray.actors[1].place.result.set_exception(ActorDiedError())
    assert turn_until(pool, ReplicaLost).replica == "replica-1"
    wait_for_actors(pool, fake_ray, 3)
    fake_ray.actors[2].place.result.set_exception(ActorDiedError())
    with pytest.raises(ModelError, match="2 were lost in a row"):
        turn_until(pool, ReplicaLost)


def test_replica_that_comes_up_resets_losses_in_a_row(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(backoff_s=0.01, max_load_losses=3)
    for round_number in range(3):
        for loss in range(2):
            number = 3 * round_number + loss
            wait_for_actors(pool, fake_ray, number + 1)
            fake_ray.actors[number].place.result.set_exception(ActorDiedError())
            turn_until(pool, ReplicaLost)
        number = 3 * round_number + 2
        wait_for_actors(pool, fake_ray, number + 1)
        come_up(pool, fake_ray.actors[number], number)
        pool.submit(Assignment(number, Batch(()), f"replica-{number}"))
        fake_ray.actors[number].run.result.set_exception(NodeDiedError("gone"))
        assert turn_until(pool, ReplicaLost).blame == "node"


def test_backoff_doubles_up_to_its_limit(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(backoff_s=1.0, max_backoff_s=5.0)
    pauses_s = []
    for losses in range(5):
        pool._losses_in_a_row = losses
        pauses_s.append(pool._backoff_s())
    assert pauses_s == [1.0, 1.0, 2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("heartbeat", "is_lost"),
    [
        (Heartbeat("step", 41.0), True),
        (Heartbeat("step", 39.0), False),
        (Heartbeat("compilation", 239.0), False),
        (Heartbeat("compilation", 241.0), True),
        (Heartbeat("idle", 999.0), False),
    ],
)
def test_heartbeat_decides_whether_replica_hangs(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay, heartbeat: Heartbeat, is_lost: bool
) -> None:
    pool = open_pool(step_timeout_s=40.0)
    actor = fake_ray.actors[0]
    come_up(pool, actor, 0)
    pool._watch(actor.heartbeat.remote(), "replica-0", "heartbeat")
    actor.heartbeat.result.set_result(heartbeat)
    events = turn_for(pool, 0.05)
    assert any(isinstance(event, ReplicaLost) for event in events) == is_lost
    assert (actor in fake_ray.killed) == is_lost


def test_heartbeats_are_requested_from_live_replicas(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(step_timeout_s=0.4)
    come_up(pool, fake_ray.actors[0], 0)
    lost = turn_until(pool, ReplicaLost)
    assert fake_ray.actors[0].heartbeat.count == 1
    assert "has not answered" in lost.reason


def test_answers_of_lost_replicas_are_ignored(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(maximum=2)
    come_up(pool, fake_ray.actors[0], 0)
    come_up(pool, fake_ray.actors[1], 1)
    for number in range(2):
        pool.submit(Assignment(number, Batch(()), f"replica-{number}"))
    pool.retire("replica-0")
    fake_ray.actors[0].run.result.set_result(NOTHING)
    fake_ray.actors[1].run.result.set_result(NOTHING)
    done = [event for event in turn_for(pool, 0.05) if isinstance(event, BatchDone)]
    assert [(event.assignment.number, event.assignment.replica) for event in done] == [
        (1, "replica-1")
    ]


def test_lower_replica_target_ends_loading_replicas(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(maximum=3)
    come_up(pool, fake_ray.actors[0], 0)
    pool.want(2)
    assert (len(fake_ray.killed), pool.wanted, pool.up) == (1, 2, 1)
    pool.want(3)
    assert pool.wanted == 2, "the number never grows again"
    pool.retire("replica-0")
    wait_for_actors(pool, fake_ray, 4)


def test_replacements_that_cannot_load_do_not_stop_a_run_that_works(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(maximum=2, backoff_s=0.01, max_load_losses=2)
    come_up(pool, fake_ray.actors[0], 0)
    pool.wait_for_minimum()
    for number in range(1, 5):
        wait_for_actors(pool, fake_ray, number + 1)
        fake_ray.actors[number].place.result.set_exception(ActorDiedError())
        assert turn_until(pool, ReplicaLost).replica == f"replica-{number}"
    assert pool.up == 1


def test_one_replica_fills_the_cache_of_programs_before_others_compile(
    open_pool: Callable[..., ReplicaPool], fake_ray: FakeRay
) -> None:
    pool = open_pool(maximum=3)
    for number, actor in enumerate(fake_ray.actors):
        place = Place(f"n{number}", "10.0.0.1", number, program_cache="s3://bucket/jax")
        actor.place.result.set_result(place)
    turn_for(pool, 0.05)
    first, second, third = fake_ray.actors
    assert [actor.load.arguments[-1] for actor in fake_ray.actors] == [True, False, False]
    assert [actor.wait_for_programs.count for actor in fake_ray.actors] == [1, 0, 0]

    first.wait_for_programs.result.set_exception(ActorDiedError())
    assert turn_until(pool, ReplicaLost).replica == "replica-0"
    assert second.allow_compilation.count == second.wait_for_programs.count == 1
    assert third.allow_compilation.count == 0

    second.wait_for_programs.result.set_result(None)
    turn_for(pool, 0.05)
    assert third.allow_compilation.count == 1
    assert third.wait_for_programs.count == 0
