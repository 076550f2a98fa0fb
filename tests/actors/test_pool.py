import os
import signal
import time
from array import array
from collections.abc import Callable, Iterator

import pytest
import ray

from actors.errors import ModelError
from actors.events import BatchDone, Event, ReplicaLost, ReplicaReady
from actors.messages import Batch, Completion, Request, RowRef, Sampling
from actors.pool import PoolConfig, ReplicaPool
from pipeline.dispatch import DispatchConfig, run_batches
from pipeline.progress import Progress
from tests.fakes import answer

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STUB = "tests.fakes:StubReplica"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def batch(number: int, rows: list[int]) -> Batch:
    return Batch(number, tuple(Request(RowRef(0, row), array("i", [row + 1]), Sampling(max_tokens=2)) for row in rows))


def until(pool: ReplicaPool, kind: type[Event], timeout_s: float = 60) -> Event:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        for event in pool.events(0.2):
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


def start(spec: dict[str, object], notify: Callable[[str], None] = print, **config: float) -> ReplicaPool:
    standard: dict[str, object] = {"minimum": 1, "maximum": 1, "devices": 3, "backoff_s": 0.05}
    return ReplicaPool(spec, PoolConfig(**(standard | config)), replica_class=STUB, notify=notify)  # type: ignore[arg-type]


def test_a_replica_answers_and_a_killed_one_is_replaced_under_a_new_name() -> None:
    with start({}) as pool:
        pool.wait_for_minimum()
        ready = until(pool, ReplicaReady)
        assert isinstance(ready, ReplicaReady)
        assert ready.info is not None
        assert ready.info.devices[0].endswith("--xla_force_host_platform_device_count=3")
        assert ready.info.devices[1] == "cpu"
        pool.submit(ready.replica, batch(1, [1, 2]))
        done = until(pool, BatchDone)
        assert isinstance(done, BatchDone)
        assert done.result.completions == tuple(answer(request) for request in batch(1, [1, 2]).requests)
        os.kill(int(ready.info.node), signal.SIGKILL)
        pool.submit(ready.replica, batch(2, [3]))
        lost = until(pool, ReplicaLost)
        assert isinstance(lost, ReplicaLost)
        assert lost.replica == ready.replica
        again = until(pool, ReplicaReady)
        assert isinstance(again, ReplicaReady)
        assert again.replica != ready.replica


def test_a_row_that_kills_its_actor_ends_as_an_error_and_all_others_are_answered() -> None:
    source = [batch(0, [0, 1]), batch(1, [2, 3])]
    with start({"deadly_row": 2}, minimum=2, maximum=2) as pool:
        pool.wait_for_minimum()
        found: list[Completion] = list(run_batches(source, pool, DispatchConfig(2, max_attempts=2, poll_s=0.1), Progress(4)))
    assert {completion.ref.row: completion.error_code for completion in found} == {0: None, 1: None, 2: "engine_crash", 3: None}


def test_a_model_that_cannot_be_loaded_stops_at_once_with_its_sentence() -> None:
    with (
        start({"refuse": True}) as pool,
        pytest.raises(ModelError, match=r"^checkpoint /nowhere: no files there; give the folder"),
    ):
        pool.wait_for_minimum()


def test_dying_while_loading_again_and_again_stops_with_the_cause() -> None:
    with start({"die_loading": True}, max_load_losses=2) as pool, pytest.raises(ModelError, match=r"2 were lost in a row"):
        pool.wait_for_minimum()


def test_a_cluster_without_room_is_described() -> None:
    said: list[str] = []
    with start({}, said.append, minimum=9, maximum=9, remind_s=0.0) as pool:
        pool.wait_for_minimum(lambda: len(said) > 0)
    assert "0 of at least 9 up" in said[0]
    assert "each takes 1 CPU, the cluster has 4 CPU" in said[0]
