import contextlib
from array import array
from collections.abc import Iterator

from actors.protocol.messages import Batch, Request, RowRef
from actors.protocol.sampling import Sampling
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.dispatch.limits import NO_LIMITS, Limits
from pipeline.errors import LimitReachedError
from pipeline.monitoring.progress import Progress
from tests.fakes import FakeReplicas

FAST = DispatchConfig(in_flight=2, poll_s=0.0)


class DrawnLimit:
    """A limit that is near once a number of batches were drawn."""

    def __init__(self, batches: int, *, is_near: bool = True, expires: bool = False) -> None:
        self.drawn = 0
        self._batches = batches
        self._is_near = is_near  # and not reached
        self._expires = expires

    def batches(self) -> Iterator[Batch]:
        """Yields batches without end."""
        while True:
            self.drawn += 1
            ids = array("i", [self.drawn % 40 + 1, 3])
            yield Batch((Request(RowRef(0, self.drawn), ids, Sampling(max_tokens=2, seed=1)),))

    def reached(self, within_s: float = 0.0) -> bool:
        is_before = self._is_near and within_s == 0.0
        return self.drawn >= self._batches and not is_before

    def expired(self) -> bool:
        return self._expires

    def error(self) -> LimitReachedError:
        return LimitReachedError("the limit")


def answered_rows(limit: DrawnLimit, replicas: FakeReplicas) -> list[int]:
    """Returns the rows that a run answers before its limit ends it."""
    limits: Limits = limit
    batches = limit.batches()
    rows: list[int] = []
    with contextlib.suppress(LimitReachedError):
        for completion in run_batches(batches, replicas, FAST, Progress(1), bool, limits):
            rows.append(completion.ref.row)  # noqa: PERF401 -- the error ends the loop
    return rows


def test_no_limits_are_never_reached() -> None:
    assert not NO_LIMITS.reached(1e9)
    assert not NO_LIMITS.expired()


def test_run_near_its_limit_waits_for_what_replicas_hold() -> None:
    limit = DrawnLimit(10)
    replicas = FakeReplicas(count=2, seed=1)

    rows = answered_rows(limit, replicas)

    assert sorted(rows) == list(range(1, limit.drawn + 1))
    assert limit.drawn >= 10
    assert replicas.up == 0, "a replica without a batch ends"


def test_run_beyond_its_limit_waits_for_one_batch_of_each_replica() -> None:
    limit = DrawnLimit(10, is_near=False)
    replicas = FakeReplicas(count=4, seed=1)

    rows = answered_rows(limit, replicas)

    assert len(replicas.submitted) == 10
    assert 6 <= len(rows) < 10, "of two batches that a replica holds, one is answered"
    assert replicas.up == 0


def test_run_whose_time_is_over_does_not_wait() -> None:
    limit = DrawnLimit(10, expires=True)

    rows = answered_rows(limit, FakeReplicas(count=2, seed=1))

    assert len(rows) < limit.drawn
