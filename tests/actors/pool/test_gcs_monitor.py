import threading
import time
from collections.abc import Callable, Iterator

import pytest

from actors.pool.gcs_monitor import GcsMonitor
from actors.protocol.errors import ClusterLostError


class Head:
    """Answers while it is there; else a question stays open, as Ray's do."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.there.set()
        self.draining: set[str] = set()
        self.s = 0.0

    def ask(self) -> set[str]:
        self.there.wait(10)
        return set(self.draining)

    def clock(self) -> float:
        return self.s


@pytest.fixture
def head() -> Head:
    return Head()


@pytest.fixture
def watch(head: Head) -> Iterator[GcsMonitor]:
    made = GcsMonitor(head.ask, 1000.0, 20.0, head.clock)
    yield made
    head.there.set()
    made.close()
    assert not made._thread.is_alive()


def soon(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_head_is_probed_at_once_on_request(head: Head, watch: GcsMonitor) -> None:
    assert watch.draining == set()
    head.s, head.draining = 5.0, {"node"}
    assert watch.answered_since(0.0)
    assert not watch.answered_since(3.0), "its last answer is older"
    soon(lambda: watch.answered_since(3.0))
    assert watch.draining == {"node"}


def test_silent_head_is_lost_without_blocking(head: Head, watch: GcsMonitor) -> None:
    head.there.clear()
    head.s = 19.0
    assert not watch.answered_since(1.0)
    watch.check()
    head.s = 21.0
    with pytest.raises(
        ClusterLostError, match="has not answered for 21 s; committed shards are kept"
    ):
        watch.check()
    head.there.set()
    soon(lambda: watch.answered_since(1.0))
    watch.check()


def test_head_is_probed_periodically(head: Head) -> None:
    made = GcsMonitor(head.ask, 0.01, 20.0, head.clock)
    head.draining = {"node"}
    soon(lambda: made.draining == {"node"})
    made.close()


def test_answer_counts_from_when_its_request_was_sent(head: Head, watch: GcsMonitor) -> None:
    """The head may have gone after it received the request."""
    head.s = 5.0
    head.there.clear()
    assert not watch.answered_since(3.0)  # sends a request at 5
    soon(lambda: not watch._wake_up.is_set())
    time.sleep(0.05)  # until the request is open
    head.s = 30.0
    head.there.set()
    soon(lambda: watch._requested_s > 0.0)
    assert not watch.answered_since(6.0)
