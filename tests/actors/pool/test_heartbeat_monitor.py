import pytest

from actors.pool.heartbeat_monitor import COMPILATION_FACTOR, HeartbeatMonitor
from actors.protocol.events import Heartbeat


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> HeartbeatMonitor:
    made = HeartbeatMonitor(40.0, clock)
    made.begin("a")
    return made


def test_monitor_sends_one_heartbeat_request_at_a_time(
    watch: HeartbeatMonitor, clock: Clock
) -> None:
    assert watch.turn() == ([], [])
    asked = []
    for _ in range(200):
        clock.s += 0.1
        asked += watch.turn()[0]
    assert asked == ["a"], "asked once in 20 s, as the first question is open"
    assert watch.received("a", Heartbeat("idle")) is None
    clock.s += 10.1
    assert watch.turn() == (["a"], [])


def test_replica_without_heartbeat_hangs(watch: HeartbeatMonitor, clock: Clock) -> None:
    clock.s = 10.1
    assert watch.turn() == (["a"], [])
    clock.s = 50.0
    assert watch.turn() == ([], [])
    clock.s = 53.0
    asked, ((name, reason),) = watch.turn()
    assert (asked, name) == ([], "a")
    assert reason == "its process has not answered for 43 s, --step-timeout-s is 40"
    watch.forget("a")
    clock.s = 99.0
    assert watch.turn() == ([], [])


@pytest.mark.parametrize(
    ("heartbeat", "hangs"),
    [
        (Heartbeat("idle", 9e9), False),
        (Heartbeat("loading", 9e9), False),
        (Heartbeat("step", 40), False),
        (Heartbeat("step", 40.1), True),
        (Heartbeat("compilation", 41), False),
        (Heartbeat("compilation", 40 * COMPILATION_FACTOR + 1), True),
    ],
)
def test_heartbeat_decides_by_state_and_step_time(
    watch: HeartbeatMonitor, heartbeat: Heartbeat, hangs: bool
) -> None:
    reason = watch.received("a", heartbeat)
    assert (reason is not None) == hangs
    assert reason is None or f"at one {heartbeat.doing} for" in reason


def test_heartbeat_of_forgotten_replica_is_ignored(watch: HeartbeatMonitor) -> None:
    watch.forget("a")
    assert watch.received("a", Heartbeat("step", 9e9)) is None


def test_starting_replicas_are_polled_more_often(watch: HeartbeatMonitor, clock: Clock) -> None:
    """Users watch how far they are."""
    polled_at_s = []
    compiling = Heartbeat("compilation", 1.0, programs=9, compiled=3)
    while clock.s < 20:
        clock.s += 0.5
        for name in watch.turn()[0]:
            polled_at_s.append(clock.s)
            watch.received(name, compiling)
    assert len(polled_at_s) >= 6
    assert watch.heartbeats() == [compiling]
    watch.answered("a")
    assert watch.heartbeats() == [Heartbeat("idle")], "a batch that came back was compiled"
    watch.received("a", Heartbeat("step"))
    polled_at_s.clear()
    while clock.s < 29:
        clock.s += 0.5
        polled_at_s += watch.turn()[0]
    assert polled_at_s == []
