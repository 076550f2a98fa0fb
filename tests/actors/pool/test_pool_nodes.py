"""The pool on several simulated nodes: they die, are drained, and come back.

Each replica takes one GPU that is not there.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.pool.config import PoolConfig
from actors.pool.remote import draining_nodes
from actors.pool.replica_pool import ReplicaPool
from actors.protocol.events import Assignment, Event, ReplicaLeaving, ReplicaLost
from actors.protocol.messages import Batch, Completion
from jobs.cluster.local_node import small_nodes
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.monitoring.progress import Progress
from tests.actors.pool.test_replica_pool import batch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LAST = 1_000_000  # a row that takes seconds
# its batch does not end before its machine does
BUSY: dict[str, object] = {"row": 1, "how": "slow", "slow_s": 60}
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    head = {"num_cpus": 2, "num_gpus": 0, "_system_config": QUICK}
    with small_nodes():
        made = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def start(spec: dict[str, object] | None = None, **config: Any) -> ReplicaPool:
    standard: dict[str, Any] = {
        "minimum": 1,
        "maximum": 2,
        "devices": 1,
        "device": "gpu",
        "backoff_s": 0.05,
        "drain_poll_s": 0.2,
    }
    return ReplicaPool(
        {"sleep_s": 0.2} | (spec or {}),
        PoolConfig(**(standard | config)),
        replica_class="tests.actors.faulty:FaultyReplica",
    )


def places(pool: ReplicaPool) -> dict[str, str]:
    """Replica → node, of those whose process lives."""
    return {
        name: member.place.node
        for name, member in pool._members.items()
        if member.place is not None and member.info
    }


def turn_until(
    pool: ReplicaPool, reached: Callable[[list[Event]], bool], timeout_s: float = 60
) -> list[Event]:
    ends, seen = time.monotonic() + timeout_s, list[Event]()
    while not reached(seen):
        assert time.monotonic() < ends, f"not within {timeout_s} s; seen {seen}"
        seen += pool.events(0.1)
    return seen


def batches_until(reached: Callable[[], bool]) -> Iterator[Batch]:
    """Batches of one row each, for as long as it takes: how fast the machine is does not matter."""
    for number in itertools.count():
        if reached():
            return
        yield batch([number])


def came_up(progress: Progress) -> list[Any]:
    """What the report says of the replicas that came up.

    Others may have been placed where their node was about to go.
    """
    replicas: Any = progress.report()["replicas"]
    return [each for each in replicas if each["info"] is not None]


def worked(progress: Progress, place: int) -> bool:
    replicas = came_up(progress)
    return len(replicas) > place and replicas[place]["stats"]["up_s"] > 0


def all_answered(found: list[Completion]) -> None:
    assert all(completion.error_code is None for completion in found), found
    assert sorted(completion.ref.row for completion in found) == list(range(len(found)))


def loss_of(name: str, pool: ReplicaPool) -> ReplicaLost:
    """Turns until the replica is lost.

    Another one may be lost before: Ray had let it wait for room on the same node.
    """

    def found(seen: list[Event]) -> list[ReplicaLost]:
        return [each for each in seen if isinstance(each, ReplicaLost) and each.replica == name]

    [lost] = found(turn_until(pool, lambda seen: bool(found(seen))))
    return lost


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pool_loses_no_row_with_a_raylet_and_uses_new_capacity(
    cluster: Cluster, number: signal.Signals
) -> None:
    first, second = (cluster.add_node(num_cpus=2, num_gpus=1) for _ in range(2))
    progress, found = Progress(1), list[Completion]()
    with start(minimum=2) as pool:
        pool.wait_for_minimum()
        assert set(places(pool).values()) == {first.node_id, second.node_id}
        source = batches_until(lambda: worked(progress, 2))
        for completion in run_batches(source, pool, DispatchConfig(2, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 6:
                raylet = second.all_processes["raylet"][0].process
                os.kill(raylet.pid, number)
                cluster.add_node(num_cpus=2, num_gpus=1)
    all_answered(found)
    assert [each["lost"] is not None for each in came_up(progress)].count(True) == 1


def test_killed_raylet_is_blamed_on_its_node(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    with start(BUSY, maximum=1) as pool:
        pool.wait_for_minimum()
        name = next(iter(places(pool)))
        pool.submit(Assignment(1, batch([1]), name))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        lost = loss_of(name, pool)
        assert lost.blame == "node", lost


def test_drained_node_returns_its_batches_and_is_replaced(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    progress, found = Progress(1), list[Completion]()
    with start(maximum=1) as pool:
        pool.wait_for_minimum()
        source = batches_until(lambda: worked(progress, 1))
        for completion in run_batches(source, pool, DispatchConfig(2, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 4:
                drain(node.node_id)
                cluster.add_node(num_cpus=2, num_gpus=1)
    all_answered(found)
    old, new = came_up(progress)
    assert "drains its node" in old["retired"]
    assert (old["lost"], new["lost"]) == (None, None)


def test_drained_node_that_dies_early_blames_no_row(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    with start(BUSY, maximum=1) as pool:
        pool.wait_for_minimum()
        name = next(iter(places(pool)))
        drain(node.node_id)
        turn_until(pool, lambda seen: any(isinstance(each, ReplicaLeaving) for each in seen))
        pool.submit(Assignment(1, batch([1]), name))
        cluster.remove_node(node, allow_graceful=False)
        lost = loss_of(name, pool)
        assert lost.blame == "nobody", lost


def test_replicas_join_with_their_nodes_and_leave_at_the_tail(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2, num_gpus=1)
    progress, found = Progress(1), list[Completion]()
    with start({"row": LAST, "how": "slow"}, maximum=4) as pool:
        pool.wait_for_minimum()
        assert (pool.up, pool.wanted) == (1, 4)
        source = itertools.chain(batches_until(lambda: worked(progress, 2)), [batch([LAST])])
        for completion in run_batches(source, pool, DispatchConfig(1, poll_s=0.1), progress):
            found.append(completion)
            if len(found) == 3:
                cluster.add_node(num_cpus=2, num_gpus=2)
        assert (pool.up, pool.wanted) == (2, 2), (
            "one is busy, one stands by; the fourth, which never found room, was called off"
        )
    all_answered([each for each in found if each.ref.row != LAST])
    assert found[-1].ref.row == LAST
    assert [each["retired"] is not None for each in came_up(progress)].count(True) == 1


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
