"""The pool on several simulated nodes: they die, are drained, and come back. Each replica takes one GPU that is not there."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.events import Event, ReplicaLeaving, ReplicaLost
from actors.messages import Completion
from actors.pool import PoolConfig, ReplicaPool
from actors.remote import draining_nodes
from pipeline.dispatch import DispatchConfig, run_batches
from pipeline.progress import Progress
from tests.actors.test_pool import batch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "_system_config": QUICK})
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def start(spec: dict[str, object] | None = None, **config: Any) -> ReplicaPool:
    standard: dict[str, Any] = {"minimum": 1, "maximum": 2, "devices": 1, "device": "gpu", "backoff_s": 0.05, "drain_poll_s": 0.2}
    return ReplicaPool(
        {"sleep_s": 0.2} | (spec or {}),
        PoolConfig(**(standard | config)),
        replica_class="tests.actors.faulty:FaultyReplica",
        notify=print,
    )


def places(pool: ReplicaPool) -> dict[str, str]:
    """Replica → node, of those whose process lives."""
    return {name: member.place.node for name, member in pool._members.items() if member.place is not None and member.info}


def turn_until(pool: ReplicaPool, reached: Callable[[list[Event]], bool], timeout_s: float = 60) -> list[Event]:
    ends, seen = time.monotonic() + timeout_s, list[Event]()
    while not reached(seen):
        assert time.monotonic() < ends, f"not within {timeout_s} s; seen {seen}"
        seen += pool.events(0.1)
    return seen


def rows(found: list[Completion]) -> list[int]:
    assert all(completion.error_code is None for completion in found), found
    return sorted(completion.ref.row for completion in found)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_ended_raylet_costs_no_row_and_capacity_that_comes_back_is_used(cluster: Cluster, number: signal.Signals) -> None:
    first, second = (cluster.add_node(num_cpus=2, num_gpus=1) for _ in range(2))
    progress, found, killed = Progress(60), list[Completion](), False
    with start(minimum=2) as pool:
        pool.wait_for_minimum()
        assert set(places(pool).values()) == {first.node_id, second.node_id}
        source = (batch(number, [number]) for number in range(60))
        for completion in run_batches(source, pool, DispatchConfig(2, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 6:
                raylet = second.all_processes["raylet"][0].process
                os.kill(raylet.pid, number)
                cluster.add_node(num_cpus=2, num_gpus=1)
                killed = True
    assert killed
    assert rows(found) == list(range(60))
    replicas: Any = progress.report()["replicas"]
    assert len(replicas) == 3, "the new node got a replica"
    assert [each["lost"] is not None for each in replicas].count(True) == 1
    assert replicas[2]["stats"]["up_s"] > 0, "the new replica worked"


def test_a_killed_raylet_is_the_nodes_fault(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    with start(maximum=1) as pool:
        pool.wait_for_minimum()
        name = next(iter(places(pool)))
        pool.submit(name, batch(1, [1]))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        lost = turn_until(pool, lambda seen: any(isinstance(each, ReplicaLost) for each in seen))[-1]
        assert isinstance(lost, ReplicaLost)
        assert lost.blame == "node", lost


def test_a_drained_node_hands_back_what_it_holds_and_is_replaced(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    progress, found = Progress(30), list[Completion]()
    with start(maximum=1) as pool:
        pool.wait_for_minimum()
        source = (batch(number, [number]) for number in range(30))
        for completion in run_batches(source, pool, DispatchConfig(2, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 4:
                drain(node.node_id)
                cluster.add_node(num_cpus=2, num_gpus=1)
    assert rows(found) == list(range(30))
    old, new = progress.report()["replicas"]  # type: ignore[misc]
    assert "drains its node" in old["retired"]
    assert (old["lost"], new["lost"]) == (None, None)


def test_a_drained_node_that_dies_before_its_batches_end_is_nobodys_fault(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    with start(maximum=1) as pool:
        pool.wait_for_minimum()
        name = next(iter(places(pool)))
        drain(node.node_id)
        turn_until(pool, lambda seen: any(isinstance(each, ReplicaLeaving) for each in seen))
        pool.submit(name, batch(1, [1]))
        cluster.remove_node(node, allow_graceful=False)
        lost = turn_until(pool, lambda seen: any(isinstance(each, ReplicaLost) for each in seen))[-1]
        assert isinstance(lost, ReplicaLost)
        assert (lost.replica, lost.blame) == (name, "nobody")


def test_replicas_join_with_their_nodes_and_leave_at_the_tail(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2, num_gpus=1)
    progress, found = Progress(40), list[Completion]()
    with start({"row": 39, "how": "slow"}, maximum=4) as pool:
        pool.wait_for_minimum()
        assert (pool.up, pool.wanted) == (1, 4)
        source = (batch(number, [number]) for number in range(40))
        for completion in run_batches(source, pool, DispatchConfig(1, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 3:
                cluster.add_node(num_cpus=2, num_gpus=2)
        assert (pool.up, pool.wanted) == (2, 2), "one is busy, one stands by; the fourth, which never found room, was called off"
    assert rows(found) == list(range(40))
    replicas: Any = progress.report()["replicas"]
    assert len(replicas) == 3
    assert any(each["retired"] for each in replicas)


def drain(node_id: str) -> None:
    """What `ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION` does."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    gcs = GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + 60) * 1000)
    accepted, why = gcs.drain_node(node_id, reason, "spot instance goes", deadline_ms)
    assert accepted, why
    ends = time.monotonic() + 10
    while node_id not in draining_nodes():
        assert time.monotonic() < ends
        time.sleep(0.05)
