import os
import signal
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
import ray

from actors.pool.config import PoolConfig
from actors.pool.remote import WATCH, Place, RemoteReplica
from actors.pool.replica_pool import ReplicaPool
from actors.protocol.errors import ModelError
from actors.protocol.events import Assignment, BatchDone, Event, ReplicaLost, ReplicaReady
from actors.protocol.messages import Batch, Completion, Request, RowRef
from actors.protocol.sampling import Sampling
from jobs.cluster.local_node import small_nodes
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.monitoring.progress import Progress
from tests.fakes import answer

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STUB = "tests.fakes:StubReplica"
PATIENT_S = 3.0  # a process that is starved on a busy machine for less than that does not hang
FAULTY = "tests.actors.faulty:FaultyReplica"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with small_nodes():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
        )
    yield
    ray.shutdown()


def batch(rows: list[int]) -> Batch:
    return Batch(
        tuple(
            Request(RowRef(0, row), array("i", [row + 1]), Sampling(max_tokens=2)) for row in rows
        ),
    )


def until(pool: ReplicaPool, kind: type[Event], timeout_s: float = 60) -> Event:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        for event in pool.events(0.2):
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


def start(
    spec: dict[str, object],
    notify: Callable[..., None] = lambda *_, **__: None,
    actor_class: type[RemoteReplica] = RemoteReplica,
    **config: float,
) -> ReplicaPool:
    standard: dict[str, object] = {"minimum": 1, "maximum": 1, "devices": 3, "backoff_s": 0.05}
    return ReplicaPool(
        spec,
        PoolConfig(**(standard | config)),  # type: ignore[arg-type]
        replica_class=STUB,
        actor_class=actor_class,
        notify=notify,
    )


def faulty(spec: dict[str, object], **config: float) -> ReplicaPool:
    standard: dict[str, object] = {"minimum": 2, "maximum": 2, "devices": 1, "backoff_s": 0.05}
    return ReplicaPool(spec, PoolConfig(**(standard | config)), replica_class=FAULTY)  # type: ignore[arg-type]


def test_killed_replica_is_replaced_under_a_new_name() -> None:
    with start({}) as pool:
        pool.wait_for_minimum()
        ready = until(pool, ReplicaReady)
        assert isinstance(ready, ReplicaReady)
        assert ready.info is not None
        assert ready.info.devices[0].endswith("--xla_force_host_platform_device_count=3")
        assert ready.info.devices[1] == "cpu"
        pool.submit(Assignment(1, batch([1, 2]), ready.replica))
        done = until(pool, BatchDone)
        assert isinstance(done, BatchDone)
        assert done.result.completions == tuple(
            answer(request) for request in batch([1, 2]).requests
        )
        os.kill(int(ready.info.node), signal.SIGKILL)
        pool.submit(Assignment(2, batch([3]), ready.replica))
        lost = until(pool, ReplicaLost)
        assert isinstance(lost, ReplicaLost)
        assert lost.replica == ready.replica
        again = until(pool, ReplicaReady)
        assert isinstance(again, ReplicaReady)
        assert again.replica != ready.replica


class LateToSayWhere(RemoteReplica):
    """The process starts to answer later than it loads a model of no weight."""

    @ray.method(concurrency_group=WATCH)
    def place(self) -> Place:
        time.sleep(1)
        return super().place()


def test_pool_reports_node_of_running_replica() -> None:
    with start({}, actor_class=LateToSayWhere) as pool:
        pool.wait_for_minimum()
        [member] = pool._members.values()
        assert member.place is not None
        assert member.info is not None
        assert str(member.place.pid) == member.info.node


def test_row_that_kills_its_actor_fails_alone() -> None:
    source = [batch([0, 1]), batch([2, 3])]
    with start({"deadly_row": 2}, minimum=2, maximum=2) as pool:
        pool.wait_for_minimum()
        found: list[Completion] = list(
            run_batches(source, pool, DispatchConfig(2, max_attempts=2, poll_s=0.1), Progress(4))
        )
    assert {completion.ref.row: completion.error_code for completion in found} == {
        0: None,
        1: None,
        2: "engine_crash",
        3: None,
    }


def test_model_that_cannot_load_stops_the_pool_with_its_error() -> None:
    with (
        start({"refuse": True}) as pool,
        pytest.raises(ModelError, match=r"^checkpoint /nowhere: no files there; give the folder"),
    ):
        pool.wait_for_minimum()


def test_repeated_deaths_while_loading_stop_with_the_cause() -> None:
    with (
        start({"die_loading": True}, max_load_losses=2) as pool,
        pytest.raises(ModelError, match=r"2 were lost in a row"),
    ):
        pool.wait_for_minimum()


def test_cluster_without_room_is_described() -> None:
    said: list[str] = []
    with start(
        {}, lambda _, message, **__: said.append(message), minimum=9, maximum=9, remind_s=0.0
    ) as pool:
        pool.wait_for_minimum(lambda: len(said) > 0)
    assert "0 of at least 9 up" in said[0]
    assert "each takes 1 CPU, the cluster has 4 CPU" in said[0]


@pytest.mark.parametrize("how", ["exit", "kill", "hog", "raise"])
def test_poisonous_row_costs_a_bounded_number_of_replicas(how: str) -> None:
    """Its process ends itself, is killed, runs out of memory, or its engine breaks."""
    source = [batch([0, 1]), batch([2, 3])]
    progress = Progress(4)
    with faulty({"row": 2, "how": how}) as pool:
        pool.wait_for_minimum()
        found = list(
            run_batches(source, pool, DispatchConfig(2, max_attempts=2, poll_s=0.1), progress)
        )
    codes = {completion.ref.row: completion.error_code for completion in found}
    assert codes == {0: None, 1: None, 2: "engine_crash", 3: None}
    report = progress.report()
    lost = [each["lost"] for each in report["replicas"] if each["lost"]]  # type: ignore[attr-defined]
    assert 2 <= len(lost) <= 3, lost
    assert all(len(reason) > 10 for reason in lost)
    assert report["retries"] in range(2, 8)


def test_hung_engine_is_replaced_and_its_row_fails() -> None:
    source = [batch([0, 1]), batch([2, 3])]
    progress = Progress(4)
    with faulty({"row": 2, "how": "hang"}, step_timeout_s=PATIENT_S) as pool:
        pool.wait_for_minimum()
        found = list(
            run_batches(source, pool, DispatchConfig(2, max_attempts=2, poll_s=0.1), progress)
        )
    by_row = {completion.ref.row: completion for completion in found}
    assert {row: completion.error_code for row, completion in by_row.items()} == {
        0: None,
        1: None,
        2: "engine_crash",
        3: None,
    }
    assert "hung: its engine has been at one step for" in str(by_row[2].error_message)
    assert f"--step-timeout-s is {PATIENT_S:g}" in str(by_row[2].error_message)


@pytest.mark.parametrize("moment", ["idle", "running"])
def test_stopped_process_is_replaced_and_frees_its_devices(moment: str) -> None:
    """SIGSTOP stands for a process that is swapped out or held by a debugger: alive but silent."""
    with faulty(
        {"row": 1, "how": "slow", "slow_s": 60}, minimum=1, maximum=1, step_timeout_s=PATIENT_S
    ) as pool:
        pool.wait_for_minimum()
        ready = until(pool, ReplicaReady)
        assert isinstance(ready, ReplicaReady)
        assert ready.info is not None
        pid = int(ready.info.node)
        if moment == "running":
            pool.submit(Assignment(1, batch([1]), ready.replica))
        os.kill(pid, signal.SIGSTOP)
        lost = until(pool, ReplicaLost)
        assert isinstance(lost, ReplicaLost)
        assert lost.replica == ready.replica
        assert "hung: its process has not answered for" in lost.reason
        again = until(pool, ReplicaReady)
        assert isinstance(again, ReplicaReady)
        pool.submit(Assignment(2, batch([3]), again.replica))
        done = until(pool, BatchDone)
        assert isinstance(done, BatchDone)
        assert done.assignment.number == 2
        ends = time.monotonic() + 30
        while process_lives(pid) and time.monotonic() < ends:
            time.sleep(0.1)
        assert not process_lives(pid), "the stopped process still holds its devices"


def process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_death_of_idle_replica_is_detected() -> None:
    with faulty({}, minimum=1, maximum=1, step_timeout_s=2.0) as pool:
        pool.wait_for_minimum()
        ready = until(pool, ReplicaReady)
        assert isinstance(ready, ReplicaReady)
        assert ready.info is not None
        os.kill(int(ready.info.node), signal.SIGKILL)
        assert isinstance(until(pool, ReplicaLost), ReplicaLost)
        assert isinstance(until(pool, ReplicaReady), ReplicaReady)


def test_results_of_abandoned_replica_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a network partition: ending it does not reach it."""
    with faulty(
        {"row": 1, "how": "slow", "slow_s": 2.5}, minimum=1, maximum=1, step_timeout_s=1.0
    ) as pool:
        pool.wait_for_minimum()
        ready = until(pool, ReplicaReady)
        assert isinstance(ready, ReplicaReady)
        partitioned: list[object] = []
        monkeypatch.setattr(ray, "kill", partitioned.append)
        pool.submit(Assignment(1, batch([1]), ready.replica))
        assert isinstance(until(pool, ReplicaLost), ReplicaLost)
        assert partitioned
        seen: list[Event] = []
        while ray.get(partitioned[0].heartbeat.remote()).doing != "idle":  # type: ignore[attr-defined]
            seen += pool.events(0.2)
        seen += [event for _ in range(5) for event in pool.events(0.1)]  # its answer has come
        assert not [event for event in seen if isinstance(event, BatchDone)]
        monkeypatch.undo()
        for actor in partitioned:
            ray.kill(actor)


def test_run_continues_with_one_failing_replica() -> None:
    """Once the run has begun, replacements that cannot load are retried with growing delays."""
    said: list[str] = []
    with start(
        {}, lambda event, *_, **__: said.append(event), max_load_losses=2, minimum=1, maximum=1
    ) as pool:
        pool.wait_for_minimum()
        pool._spec = ray.put({"die_loading": True})
        pool._wanted = 2
        pool._plan_replacements()
        ends = time.monotonic() + 90
        while len(said) < 3 and time.monotonic() < ends:
            pool.events(0.1)
        assert len(said) >= 3
        assert pool.up == 1
