from collections.abc import Iterator
from typing import Any

import pytest

from actors.protocol.events import Assignment, BatchDone, Event, ReplicaLost, ReplicaReady
from actors.protocol.messages import Batch, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from jobs.benchmarks.simulated_replicas import (
    RESPAWN_S,
    SimulatedClock,
    SimulatedReplicas,
)

REQUEST = Request(RowRef(0, 0), token_ids([1, 2]), sampling=Sampling(max_tokens=3, seed=5))


def replicas_of(clock: SimulatedClock | None = None, **flags: Any) -> SimulatedReplicas:
    values: dict[str, Any] = {"folder": "x", "replicas": 1, "failure_s": None}
    return SimulatedReplicas(DriverBenchmarkConfig(**(values | flags)), clock or SimulatedClock())


def ready(replicas: SimulatedReplicas) -> list[str]:
    """Returns the names of the replicas that are up at the start."""
    return [event.replica for event in replicas.events(0.0) if isinstance(event, ReplicaReady)]


def events_until_done(replicas: SimulatedReplicas, count: int) -> Iterator[Event]:
    """Yields events until `count` batches are done."""
    while count:
        for event in replicas.events(1e6):
            count -= isinstance(event, BatchDone)
            yield event


def test_simulated_time_jumps_when_the_driver_waits() -> None:
    clock = SimulatedClock()
    replicas = replicas_of(clock, service_s=1000.0)
    [name] = ready(replicas)
    replicas.submit(Assignment(1, Batch((REQUEST,)), name))
    assert replicas.events(0.0) == []

    [done] = events_until_done(replicas, 1)

    assert isinstance(done, BatchDone)
    assert clock.now() > 10
    assert clock.driver_s < 10
    replicas.close()
    assert 0 < replicas.busy_s <= replicas.up_s


def test_simulated_wait_is_limited_by_the_timeout() -> None:
    clock = SimulatedClock()
    replicas = replicas_of(clock, service_s=1e6)
    [name] = ready(replicas)
    replicas.submit(Assignment(1, Batch((REQUEST,)), name))

    assert replicas.events(2.0) == []
    assert clock.waited_s == 2.0


def test_excluded_blocks_are_not_time_of_the_driver() -> None:
    clock = SimulatedClock()
    clock.started_s -= 100.0

    with clock.excluded():
        before_s = clock.simulation_s
        sum(range(10**5))

    assert clock.simulation_s > before_s
    assert 100.0 <= clock.driver_s < 101.0


def test_simulated_completions_have_full_length_and_depend_on_the_request() -> None:
    replicas = replicas_of()
    [name] = ready(replicas)
    replicas.submit(Assignment(1, Batch((REQUEST,)), name))

    [done] = events_until_done(replicas, 1)

    assert isinstance(done, BatchDone)
    [completion] = done.result.completions
    assert completion.ref == REQUEST.ref
    assert list(completion.token_ids) == [2, 3, 4]
    assert completion.finish_reason == "length"
    assert (completion.prompt_tokens, completion.seed) == (2, 5)
    assert completion.token_logprobs is not None
    assert len(completion.token_logprobs) == 3


def test_simulated_replica_answers_its_batches_in_order() -> None:
    replicas = replicas_of()
    [name] = ready(replicas)
    for number in range(5):
        replicas.submit(Assignment(number, Batch((REQUEST,)), name))

    events = list(events_until_done(replicas, 5))

    numbers = [event.assignment.number for event in events if isinstance(event, BatchDone)]
    assert numbers == [0, 1, 2, 3, 4]
    assert replicas.batches == 5


def test_stragglers_take_longer_by_their_factor() -> None:
    times: list[float] = []
    for slow_share in (0.0, 1.0):
        clock = SimulatedClock()
        replicas = replicas_of(clock, slow_share=slow_share, slow_factor=10.0, service_s=1000.0)
        [name] = ready(replicas)
        replicas.submit(Assignment(1, Batch((REQUEST,)), name))
        list(events_until_done(replicas, 1))
        times.append(clock.waited_s)

    assert times[1] == pytest.approx(10 * times[0], rel=0.01)


def test_lost_replicas_come_back_later_under_another_name() -> None:
    clock = SimulatedClock()
    replicas = replicas_of(clock, failure_s=5.0)
    [first] = ready(replicas)

    [lost] = replicas.events(1e6)
    assert isinstance(lost, ReplicaLost)
    assert (lost.replica, replicas.up, replicas.losses) == (first, 0, 1)

    lost_s = clock.now()
    [second] = replicas.events(1e6)
    assert isinstance(second, ReplicaReady)
    assert second.replica != first
    assert clock.now() - lost_s == pytest.approx(RESPAWN_S, abs=1.0)


def test_lost_replica_does_not_answer_its_batches() -> None:
    replicas = replicas_of(failure_s=1.0, service_s=1e5)
    [name] = ready(replicas)
    replicas.submit(Assignment(1, Batch((REQUEST,)), name))

    events = [event for _ in range(20) for event in replicas.events(1e6)]

    assert any(isinstance(event, ReplicaLost) for event in events)
    assert not any(isinstance(event, BatchDone) for event in events)


def test_want_cancels_replicas_that_are_starting() -> None:
    replicas = replicas_of(replicas=5)

    replicas.want(2)

    assert len(ready(replicas)) == 2
    assert (replicas.up, replicas.wanted) == (2, 5)


def test_retired_replica_counts_only_the_time_it_was_up() -> None:
    clock = SimulatedClock()
    replicas = replicas_of(clock, replicas=2)
    [first, _] = ready(replicas)
    replicas.retire(first)
    clock.waited_s += 100.0

    replicas.close()

    assert replicas.up == 0
    assert 100.0 <= replicas.up_s < 101.0
    assert replicas.busy_s == 0.0
