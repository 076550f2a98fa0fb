from array import array
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.errors import ModelError
from actors.protocol.events import (
    Assignment,
    BatchDone,
    Event,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import Batch, BatchResult, Completion, ReplicaStats, Request, RowRef
from actors.protocol.sampling import Sampling
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.errors import InterruptedRunError
from pipeline.monitoring.progress import Progress
from tests.fakes import FakeReplicas, answer

FAST = DispatchConfig(in_flight=2, max_attempts=3, poll_s=0.0)


def request(row: int) -> Request:
    return Request(RowRef(0, row), array("i", [row % 40 + 1, 3]), Sampling(max_tokens=2, seed=row))


def batches(rows: int, size: int) -> list[Batch | Completion]:
    return [
        Batch(tuple(request(row) for row in range(start, min(rows, start + size))))
        for start in range(0, rows, size)
    ]


def by_row(completions: Iterator[Completion]) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    for completion in completions:
        assert completion.ref.row not in found, "answered twice"
        found[completion.ref.row] = completion
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 999),
    st.sampled_from([0.0, 0.05]),
    st.integers(1, 3),
)
def test_completions_do_not_depend_on_order_or_losses(
    rows: int, size: int, count: int, seed: int, bad_luck: float, in_flight: int
) -> None:
    replicas = FakeReplicas(count, seed, bad_luck)
    config = DispatchConfig(in_flight, max_attempts=50, poll_s=0.0)
    found = by_row(run_batches(batches(rows, size), replicas, config, Progress(rows)))
    assert found == {row: answer(request(row)) for row in range(rows)}
    assert replicas.most_in_flight <= in_flight


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 39), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(0, 999),
    st.integers(1, 4),
)
def test_row_that_kills_replicas_fails_alone(
    bad: set[int], count: int, seed: int, max_attempts: int
) -> None:
    replicas = FakeReplicas(count, seed, poison=lambda asked: asked.ref.row in bad)
    config = DispatchConfig(2, max_attempts, poll_s=0.0)
    found = by_row(run_batches(batches(40, 8), replicas, config, Progress(40)))
    assert sorted(found) == list(range(40))
    assert {row for row, completion in found.items() if completion.error_code} == bad
    assert all(
        found[row].error_code == "engine_crash" and found[row].attempts >= max_attempts
        for row in bad
    )
    assert all(found[row] == answer(request(row)) for row in range(40) if row not in bad)
    # two losses, three halvings, the tries of the row alone
    assert replicas.losses <= len(bad) * (max_attempts + 2 + 3 + 1)


def test_batches_of_a_prefix_go_to_few_replicas() -> None:
    families = [Batch((request(number),), b"%d" % (number // 20)) for number in range(200)]
    replicas = FakeReplicas(5)
    answered = run_batches(families, replicas, DispatchConfig(2, poll_s=0.0), Progress(200))
    assert sorted(c.ref.row for c in answered) == list(range(200))
    pairs = {(sent.batch.requests[0].ref.row // 20, sent.replica) for sent in replicas.submitted}
    assert len(pairs) <= 35, "ten families over five replicas: 50 pairs if nobody cared"


def test_error_completions_pass_through() -> None:
    failed = Completion.failed(RowRef(0, 5), "empty_prompt", "no token")
    found = list(run_batches([failed], FakeReplicas(1), FAST, Progress(1)))
    assert found == [failed]


def test_batches_are_read_only_when_a_replica_has_room() -> None:
    drawn: list[int] = []

    def source() -> Iterator[Batch]:
        for batch in batches(100, 1):
            assert isinstance(batch, Batch)
            drawn.append(batch.requests[0].ref.row)
            yield batch

    answered = 0
    for _ in run_batches(source(), FakeReplicas(2), FAST, Progress(100)):
        answered += 1
        assert len(drawn) - answered <= 2 * FAST.in_flight
    assert answered == 100


class Scripted(FakeReplicas):
    """Says what it was told to say, one event per question.

    Each event waits for a number of submissions.
    """

    def __init__(self, script: list[tuple[int, Event]]) -> None:
        super().__init__(0)
        self.script = script
        self.wants: list[int] = []

    def want(self, count: int) -> None:
        self.wants.append(count)

    def retire(self, replica: str) -> None:
        self.retired.append(replica)

    def submit(self, assignment: Assignment) -> None:
        self.submitted.append(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        ready = self.script and len(self.submitted) >= self.script[0][0]
        return [self.script.pop(0)[1]] if ready else []


def done(replica: str, number: int, rows: Sequence[int]) -> BatchDone:
    completions = tuple(answer(request(row)) for row in rows)
    assignment = Assignment(number, Batch(()), replica)
    return BatchDone(assignment, BatchResult(completions, ReplicaStats()))


def test_late_result_of_lost_replica_is_ignored() -> None:
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
    assert [(sent.number, sent.replica) for sent in replicas.submitted] == [(1, "a"), (2, "b")]


def test_replica_that_returns_other_rows_stops_the_run() -> None:
    class Confused(FakeReplicas):
        def events(self, timeout_s: float) -> Sequence[Event]:
            told = super().events(timeout_s)
            return [
                done(event.assignment.replica, event.assignment.number, [7])
                if isinstance(event, BatchDone)
                else event
                for event in told
            ]

    with pytest.raises(RuntimeError, match="other rows than requested"):
        list(run_batches(batches(1, 1), Confused(1), FAST, Progress(1)))


def test_interrupted_run_submits_no_more_and_keeps_results() -> None:
    replicas = FakeReplicas(2)
    answered: list[int] = []
    stream = run_batches(
        batches(100, 1), replicas, FAST, Progress(100), lambda: len(answered) >= 10
    )
    with pytest.raises(InterruptedRunError, match="continues it"):
        answered.extend(completion.ref.row for completion in stream)
    assert sorted(answered) == sorted(sent.batch.requests[0].ref.row for sent in replicas.submitted)
    assert len(answered) < 20


def test_interrupted_run_waits_for_a_limited_time() -> None:
    config = DispatchConfig(poll_s=0.01, grace_s=0.05)
    replicas = Scripted([(0, ReplicaReady("silent"))])
    with pytest.raises(InterruptedRunError):
        list(
            run_batches(
                batches(3, 1), replicas, config, Progress(3), lambda: bool(replicas.submitted)
            )
        )


@pytest.mark.slow
def test_thousand_replicas_stay_busy_and_complete_rows_once() -> None:
    rows, replicas = 60_000, FakeReplicas(1000)
    answered = [
        c.ref.row
        for c in run_batches(
            batches(rows, 10), replicas, DispatchConfig(4, poll_s=0.0), Progress(rows)
        )
    ]
    assert sorted(answered) == list(range(rows))
    everyone = set(replicas.in_flight) | set(replicas.retired)
    assert len(everyone) == 1000
    assert {sent.replica for sent in replicas.submitted[:1000]} == everyone, (
        "the first batches go to different replicas"
    )
    assert replicas.most_in_flight == 4


def test_replicas_that_all_fail_stop_the_run() -> None:
    replicas = FakeReplicas(2, poison=lambda request: True)
    with pytest.raises(ModelError, match="12 replicas in a row"):
        list(run_batches(batches(500, 10), replicas, FAST, Progress(500)))
    assert replicas.losses == 12


def test_poisonous_row_in_large_batch_does_not_stop_the_run() -> None:
    replicas = FakeReplicas(1, poison=lambda request: request.ref.row == 0)
    found = by_row(run_batches(batches(512, 512), replicas, FAST, Progress(512)))
    assert [row for row, completion in found.items() if completion.error_code] == [0]


def test_losses_of_working_replicas_do_not_stop_the_run() -> None:
    """A fault that takes many machines at once is not the model's: the run goes on."""
    names = [f"r{index}" for index in range(20)]
    ready: list[tuple[int, Event]] = [(0, ReplicaReady(name)) for name in names]
    first = [(20, done(name, index + 1, [index])) for index, name in enumerate(names)]
    lost = [(40, ReplicaLost(name, "the rack is dark")) for name in names]
    late: list[tuple[int, Event]] = [(40, ReplicaReady("new"))]
    last = [(40 + n + 1, done("new", 41 + n, [20 + n])) for n in range(20)]
    config = DispatchConfig(in_flight=1, max_attempts=3, poll_s=0.0)
    replicas = Scripted([*ready, *first, *lost, *late, *last])
    found = by_row(run_batches(batches(40, 1), replicas, config, Progress(40)))
    assert sorted(found) == list(range(40))
    assert all(completion.error_code is None for completion in found.values())


def test_rows_of_a_preempted_machine_are_never_blamed() -> None:
    script: list[tuple[int, Event]] = []
    for turn in range(9):
        script += [
            (turn, ReplicaReady(f"spot-{turn}")),
            (turn + 1, ReplicaLost(f"spot-{turn}", "pre-empted", "nobody")),
        ]
    script += [(9, ReplicaReady("last")), (10, done("last", 10, [0]))]
    replicas = Scripted(script)
    found = by_row(
        run_batches(
            batches(1, 1), replicas, DispatchConfig(1, max_attempts=2, poll_s=0.0), Progress(1)
        )
    )
    assert found == {0: answer(request(0))}


def test_leaving_replica_finishes_and_gets_no_more_batches() -> None:
    replicas = Scripted(
        [
            (0, ReplicaReady("old")),
            (1, ReplicaLeaving("old", "its node is drained")),
            (1, ReplicaReady("new")),
            (2, done("old", 1, [0])),
            *[(2 + n, done("new", 2 + n, [1 + n])) for n in range(3)],
        ]
    )
    progress = Progress(4)
    found = by_row(run_batches(batches(4, 1), replicas, DispatchConfig(1, poll_s=0.0), progress))
    assert sorted(found) == [0, 1, 2, 3]
    assert [sent.replica for sent in replicas.submitted] == ["old", "new", "new", "new"]
    assert replicas.retired[0] == "old"
    assert progress.report()["replicas"][0]["retired"] == "its node is drained"  # type: ignore[index]


@pytest.mark.parametrize(
    "gone", [ReplicaLeaving("old", "its node is drained"), ReplicaLost("old", "killed")]
)
def test_no_batch_is_read_for_a_replica_that_just_left(gone: Event) -> None:
    """It had room when the events were asked for."""
    drawn: list[int] = []

    def source() -> Iterator[Batch]:
        for batch in batches(1000, 1):
            assert isinstance(batch, Batch)
            drawn.append(batch.requests[0].ref.row)
            assert len(drawn) < 10, "the whole input would be drawn into memory"
            yield batch

    interrupted = iter([False] * 5 + [True] * 100)
    replicas = Scripted([(0, ReplicaReady("old")), (1, gone)])
    run = run_batches(
        source(),
        replicas,
        DispatchConfig(4, poll_s=0.0, grace_s=0.0),
        Progress(4),
        lambda: next(interrupted),
    )
    with pytest.raises(InterruptedRunError):
        list(run)
    assert len(drawn) <= 2


def test_idle_replicas_are_released_at_the_end_of_input() -> None:
    names = [f"r{index}" for index in range(40)]
    script: list[tuple[int, Event]] = [(0, ReplicaReady(name)) for name in names]
    script += [(40, done(name, index + 1, [index])) for index, name in enumerate(names)]
    replicas = Scripted(script)
    progress = Progress(40)
    found = by_row(run_batches(batches(40, 1), replicas, DispatchConfig(1, poll_s=0.0), progress))
    assert len(found) == 40
    assert replicas.wants == sorted(replicas.wants, reverse=True), (
        "as the tail runs out, fewer are wanted"
    )
    assert replicas.wants[-1] == 2, "one that works and one that stands by"
    assert len(replicas.retired) == 40 - 2
    reasons = [each["retired"] for each in progress.report()["replicas"]]  # type: ignore[attr-defined]
    assert reasons.count("no work was left for it") == 38


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Aging(Scripted):
    """Every question takes a second."""

    def __init__(self, script: list[tuple[int, Event]], clock: Clock) -> None:
        super().__init__(script)
        self.clock = clock

    def events(self, timeout_s: float) -> Sequence[Event]:
        self.clock.s += 1.0
        return super().events(timeout_s)


@pytest.mark.parametrize("winner", ["slow", "other"])
def test_late_batch_gets_a_second_replica_and_first_result_counts(winner: str) -> None:
    clock = Clock()
    answers = [("slow", 1), ("other", 3)]
    answers.sort(key=lambda each: each[0] != winner)
    replicas = Aging(
        [
            (0, ReplicaReady("slow")),
            (1, ReplicaReady("other")),
            (2, done("other", 2, [1])),
            *[(3, done(name, number, [0])) for name, number in answers],
        ],
        clock,
    )
    config = DispatchConfig(1, poll_s=0.0, late_factor=3.0, late_s=5.0, clock=clock)
    found = by_row(run_batches(batches(2, 1), replicas, config, Progress(2)))
    assert found == {0: answer(request(0)), 1: answer(request(1))}
    assert [sent.replica for sent in replicas.submitted] == ["slow", "other", "other"]
    assert clock.s > 5


def test_batch_on_two_replicas_survives_one_loss() -> None:
    clock = Clock()
    script: list[tuple[int, Event]] = [
        (0, ReplicaReady("slow")),
        (1, ReplicaReady("other")),
        (2, done("other", 2, [1])),
    ]
    script += [(3, ReplicaLost("slow", "hung")), (3, done("other", 3, [0]))]
    config = DispatchConfig(1, poll_s=0.0, late_factor=3.0, late_s=5.0, clock=clock)
    progress = Progress(2)
    found = by_row(run_batches(batches(2, 1), replicas := Aging(script, clock), config, progress))
    assert found == {0: answer(request(0)), 1: answer(request(1))}
    assert len(replicas.submitted) == 3
    assert progress.snapshot().retries == 0, "the other replica had it already"


def test_interrupted_run_without_replicas_ends_at_once() -> None:
    replicas = Scripted([(0, ReplicaReady("a")), (1, ReplicaLost("a", "the cluster ended too"))])
    config = DispatchConfig(1, poll_s=0.01, grace_s=1e6)
    with pytest.raises(InterruptedRunError):
        list(
            run_batches(
                batches(3, 1), replicas, config, Progress(3), lambda: bool(replicas.submitted)
            )
        )


def test_replica_lost_while_loading_is_reported() -> None:
    progress = Progress(1)
    replicas = Scripted(
        [
            (0, ReplicaLost("a", "killed while loading")),
            (0, ReplicaReady("b")),
            (1, done("b", 1, [0])),
        ]
    )
    assert len(list(run_batches(batches(1, 1), replicas, FAST, progress))) == 1
    assert progress.report()["replicas"][0]["lost"] == "killed while loading"  # type: ignore[index]


def test_result_resets_losses_in_a_row() -> None:
    """Two losses, an answer, two losses, an answer: no three in a row."""
    script: list[tuple[int, Event]] = []
    number = 0
    for row in range(4):
        for attempt in range(2):
            script += [
                (number, ReplicaReady(f"bad-{row}-{attempt}")),
                (number + 1, ReplicaLost(f"bad-{row}-{attempt}", "killed")),
            ]
            number += 1
        script += [
            (number, ReplicaReady(f"good-{row}")),
            (number + 1, ReplicaLeaving(f"good-{row}", "its node is drained")),
            (number + 1, done(f"good-{row}", number + 1, [row])),
        ]
        number += 1
    script.append((number, ReplicaReady("last")))  # the end of the input is seen with room only
    config = DispatchConfig(1, max_attempts=9, poll_s=0.0, max_losses=3)
    found = by_row(run_batches(batches(4, 1), Scripted(script), config, Progress(4)))
    assert sorted(found) == [0, 1, 2, 3]


def test_crashed_row_reports_its_attempts_and_id() -> None:
    poisonous = Request(RowRef(0, 0), array("i", [1]), Sampling(max_tokens=1), row_id="p7")
    replicas = FakeReplicas(1, poison=lambda request: True)
    config = DispatchConfig(1, max_attempts=3, poll_s=0.0)
    (crashed,) = run_batches([Batch((poisonous,))], replicas, config, Progress(1))
    assert (crashed.error_code, crashed.attempts, crashed.row_id) == ("engine_crash", 3, "p7")
    assert replicas.losses == 3


def test_row_that_fails_on_its_replica_carries_its_id() -> None:
    def refuse(request: Request) -> Completion:
        return Completion.failed(request.ref, "prompt_too_long", "too long")

    requests = [Request(RowRef(0, row), array("i", [1]), row_id=f"p{row}") for row in range(2)]
    replicas = FakeReplicas(1, answer=refuse)
    failed = run_batches([Batch(tuple(requests))], replicas, FAST, Progress(2))
    assert [completion.row_id for completion in failed] == ["p0", "p1"]


def test_late_batch_that_was_lost_before_gets_no_second_replica() -> None:
    clock = Clock()
    script: list[tuple[int, Event]] = [
        (0, ReplicaReady("a")),
        (1, ReplicaReady("b")),
        (2, done("b", 2, [1])),
        (2, ReplicaLost("a", "killed")),
        # The lost batch, number 3, is late on "b" for 20 s, with "c" idle beside it.
        *[(3, ReplicaReady(f"c{second}")) for second in range(20)],
        (3, done("b", 3, [0])),
    ]
    config = DispatchConfig(1, poll_s=0.0, late_factor=3.0, late_s=5.0, clock=clock)
    replicas = Aging(script, clock)
    found = by_row(run_batches(batches(2, 1), replicas, config, Progress(2)))
    assert sorted(found) == [0, 1]
    assert [sent.replica for sent in replicas.submitted] == ["a", "b", "b"]


def test_interrupted_run_drops_batches_that_wait_for_their_replica() -> None:
    """Batches that are sampled but not in flight are not submitted after the interruption."""
    prefix_batches = [Batch((request(row),), b"prefix") for row in range(100)]
    answered: list[int] = []
    run = run_batches(
        prefix_batches, FakeReplicas(2), FAST, Progress(100), lambda: len(answered) >= 5
    )
    with pytest.raises(InterruptedRunError):
        answered.extend(completion.ref.row for completion in run)
    assert len(answered) <= 5 + 2 * FAST.in_flight
