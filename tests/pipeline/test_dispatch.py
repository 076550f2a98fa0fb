import time
from array import array
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import ModelError
from actors.events import BatchDone, Event, ReplicaLost, ReplicaReady
from actors.messages import Batch, BatchResult, Completion, ReplicaStats, Request, RowRef, Sampling
from pipeline.dispatch import DispatchConfig, run_batches
from pipeline.errors import InterruptedRunError
from pipeline.progress import Progress
from tests.fakes import FakeReplicas, answer

FAST = DispatchConfig(in_flight=2, max_attempts=3, poll_s=0.0)


def request(row: int) -> Request:
    return Request(RowRef(0, row), array("i", [row % 40 + 1, 3]), Sampling(max_tokens=2, seed=row))


def batches(rows: int, size: int) -> list[Batch | Completion]:
    return [Batch(start, tuple(request(row) for row in range(start, min(rows, start + size)))) for start in range(0, rows, size)]


def by_row(completions: Iterator[Completion]) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    for completion in completions:
        assert completion.ref.row not in found, "answered twice"
        found[completion.ref.row] = completion
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 999), st.sampled_from([0.0, 0.05]), st.integers(1, 3)
)
def test_any_order_and_any_loss_give_the_same_completions_once(
    rows: int, size: int, count: int, seed: int, bad_luck: float, in_flight: int
) -> None:
    replicas = FakeReplicas(count, seed, bad_luck)
    config = DispatchConfig(in_flight, max_attempts=50, poll_s=0.0)
    found = by_row(run_batches(batches(rows, size), replicas, config, Progress(rows)))
    assert found == {row: answer(request(row)) for row in range(rows)}
    assert replicas.most_flying <= in_flight


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 39), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 999), st.integers(1, 4))
def test_a_row_that_kills_replicas_is_found_and_blamed_alone(bad: set[int], count: int, seed: int, max_attempts: int) -> None:
    replicas = FakeReplicas(count, seed, poison=lambda asked: asked.ref.row in bad)
    config = DispatchConfig(2, max_attempts, poll_s=0.0)
    found = by_row(run_batches(batches(40, 8), replicas, config, Progress(40)))
    assert sorted(found) == list(range(40))
    assert {row for row, completion in found.items() if completion.error_code} == bad
    assert all(found[row].error_code == "engine_crash" and found[row].attempts >= max_attempts for row in bad)
    assert all(found[row] == answer(request(row)) for row in range(40) if row not in bad)
    assert replicas.losses <= len(bad) * (max_attempts + 2 + 3 + 1)  # two losses, three halvings, the tries of the row alone


def test_error_completions_pass_through() -> None:
    failed = Completion.failed(RowRef(0, 5), "empty_prompt", "no token")
    found = list(run_batches([failed], FakeReplicas(1), FAST, Progress(1)))
    assert found == [failed]


def test_batches_are_drawn_only_when_a_replica_has_room() -> None:
    drawn: list[int] = []

    def source() -> Iterator[Batch]:
        for batch in batches(100, 1):
            assert isinstance(batch, Batch)
            drawn.append(batch.number)
            yield batch

    answered = 0
    for _ in run_batches(source(), FakeReplicas(2), FAST, Progress(100)):
        answered += 1
        assert len(drawn) - answered <= 2 * FAST.in_flight
    assert answered == 100


class Scripted(FakeReplicas):
    """Says what it was told to say, one event per question; each event waits for a number of submissions."""

    def __init__(self, script: list[tuple[int, Event]]) -> None:
        super().__init__(0)
        self.script = script

    def submit(self, replica: str, batch: Batch) -> None:
        self.submitted.append((replica, batch))

    def events(self, timeout_s: float) -> Sequence[Event]:
        ready = self.script and len(self.submitted) >= self.script[0][0]
        return [self.script.pop(0)[1]] if ready else []


def done(replica: str, number: int, rows: Sequence[int]) -> BatchDone:
    return BatchDone(replica, BatchResult(number, tuple(answer(request(row)) for row in rows), ReplicaStats()))


def test_a_late_answer_of_a_lost_replica_is_ignored() -> None:
    replicas = Scripted(
        [
            (0, ReplicaReady("a")),
            (1, ReplicaLost("a", "partitioned")),
            (1, done("a", 1, [0])),
            (1, ReplicaReady("b")),
            (2, done("a", 1, [0])),
            (2, done("b", 2, [0])),
        ]
    )
    found = list(run_batches(batches(1, 1), replicas, FAST, Progress(1)))
    assert [completion.ref.row for completion in found] == [0]
    assert [(name, batch.requests[0].attempts) for name, batch in replicas.submitted] == [("a", 1), ("b", 2)]


def test_a_replica_that_answers_other_rows_stops_the_run() -> None:
    class Confused(FakeReplicas):
        def events(self, timeout_s: float) -> Sequence[Event]:
            told = super().events(timeout_s)
            return [done(each.replica, each.result.batch, [7]) if isinstance(each, BatchDone) else each for each in told]

    with pytest.raises(RuntimeError, match="other rows than it was asked for"):
        list(run_batches(batches(1, 1), Confused(1), FAST, Progress(1)))


def test_an_interrupted_run_draws_nothing_more_and_keeps_what_comes() -> None:
    replicas = FakeReplicas(2)
    answered: list[int] = []
    stream = run_batches(batches(100, 1), replicas, FAST, Progress(100), lambda: len(answered) >= 10)
    with pytest.raises(InterruptedRunError, match="continues it"):
        answered.extend(completion.ref.row for completion in stream)
    assert sorted(answered) == sorted(batch.requests[0].ref.row for _, batch in replicas.submitted)
    assert len(answered) < 20


def test_an_interrupted_run_does_not_wait_for_ever() -> None:
    config = DispatchConfig(poll_s=0.01, grace_s=0.05)
    replicas = Scripted([(0, ReplicaReady("silent"))])
    began = time.monotonic()
    with pytest.raises(InterruptedRunError):
        list(run_batches(batches(3, 1), replicas, config, Progress(3), lambda: bool(replicas.submitted)))
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_a_thousand_replicas_are_all_kept_busy_and_each_row_is_answered_once() -> None:
    rows, replicas = 60_000, FakeReplicas(1000)
    answered = [c.ref.row for c in run_batches(batches(rows, 10), replicas, DispatchConfig(4, poll_s=0.0), Progress(rows))]
    assert sorted(answered) == list(range(rows))
    assert {name for name, _ in replicas.submitted[:1000]} == set(replicas.flying), "the first batches go to different replicas"
    assert replicas.most_flying == 4


def test_replicas_that_all_break_stop_the_run_instead_of_failing_every_row() -> None:
    replicas = FakeReplicas(2, poison=lambda request: True)
    with pytest.raises(ModelError, match="12 replicas in a row"):
        list(run_batches(batches(500, 10), replicas, FAST, Progress(500)))
    assert replicas.losses == 12


def test_one_poisonous_row_in_a_large_batch_does_not_look_like_broken_replicas() -> None:
    replicas = FakeReplicas(1, poison=lambda request: request.ref.row == 0)
    found = by_row(run_batches(batches(512, 512), replicas, FAST, Progress(512)))
    assert [row for row, completion in found.items() if completion.error_code] == [0]
