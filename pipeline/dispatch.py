"""Batches → completions, over whatever replicas there are.

Pull: a batch is drawn only when a replica has room for it. Retry stays inside: a lost replica's batches are queued again, a
batch that was lost twice runs alone on its replica and is halved when it is lost again, until the row that kills replicas
stands alone and is answered with an error. Knows no Ray, no shapes and no text: replicas are names behind the protocol
`Replicas`, which `actors/pool.py` fulfils over Ray and the tests over a dictionary.
"""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from actors.errors import EngineCrashError, ModelError
from actors.events import BatchDone, Event, ReplicaLost, ReplicaReady
from actors.messages import Batch, Completion, ReplicaInfo, ReplicaStats, Request
from pipeline.errors import InterruptedRunError

LOSSES_BEFORE_ISOLATION = 2  # a lost replica takes innocent batches with it; lost twice, a batch is suspect


class Replicas(Protocol):
    """What dispatch needs of the replicas."""

    @property
    def up(self) -> int:
        """Replicas that can take batches now."""

    @property
    def wanted(self) -> int:
        """Replicas the run would use if the cluster had room."""

    def submit(self, replica: str, batch: Batch) -> None:
        """Hands a batch over without waiting; its answer, or the replica's loss, comes as an event."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what happened since the last call; waits up to `timeout_s` when nothing did.

        Raises:
            ModelError: no replica can ever work; the job stops.
        """


class DispatchWatcher(Protocol):
    """Who wants to know how the replicas fare; `pipeline/progress.py` does."""

    def replica_ready(self, replica: str, info: ReplicaInfo | None) -> None:
        """A replica came up."""

    def replica_lost(self, replica: str, reason: str) -> None:
        """A replica is gone."""

    def replica_stats(self, replica: str, stats: ReplicaStats) -> None:
        """The counters of a replica, as of its last answer."""

    def batch_retried(self, requests: int) -> None:
        """So many requests were queued again."""


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """How hard to work and how long to try."""

    in_flight: int = 2  # batches on each replica: one runs, the next lies ready
    max_attempts: int = 3
    poll_s: float = 1.0
    max_losses: int = 12  # replicas lost in a row, no batch answered in between: then it is not the rows' fault
    grace_s: float = 20.0  # when interrupted, how long to wait for the batches that replicas already hold

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.max_attempts < 1:
            raise ValueError(f"in_flight and max_attempts must be at least 1, got {self.in_flight} and {self.max_attempts}")


def run_batches(
    batches: Iterable[Batch | Completion],
    replicas: Replicas,
    config: DispatchConfig,
    watcher: DispatchWatcher,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Completion]:
    """Yields exactly one completion per request, in the order in which they are answered; completions of `batches` pass through.

    Raises:
        InterruptedRunError: `interrupted` became true; what replicas answered within `grace_s` was yielded before.
        ModelError: no replica can ever work, or `max_losses` of them were lost in a row while none answered a batch.
        RuntimeError: a replica answered other rows than it was asked for.
    """
    source, drawing, deadline = iter(batches), True, None
    floor = _Floor(replicas, config, watcher)
    while drawing or floor.busy:
        if deadline is None and interrupted():
            drawing, deadline = False, time.monotonic() + config.grace_s
            floor.forget_retries()
        if deadline is not None and time.monotonic() > deadline:
            break
        can_place = floor.place_retries() and drawing
        yield from floor.take_events(0.0 if can_place else config.poll_s)
        if can_place and floor.has_room():
            item = next(source, None)
            if item is None:
                drawing = False
            elif isinstance(item, Completion):
                yield item
            else:
                floor.place(item.requests)
    if deadline is not None:
        raise InterruptedRunError("the run was interrupted; committed shards are kept, the same command continues it")


@dataclass(slots=True)
class _Lane:
    """One replica as dispatch sees it."""

    flying: dict[int, tuple[Request, ...]] = field(default_factory=dict)  # by batch number
    reserved: bool = False  # takes no more ordinary work: a suspect runs on it alone, or will once it is idle


class _Floor:
    """Replicas, the batches they hold, and the batches that have to run again."""

    def __init__(self, replicas: Replicas, config: DispatchConfig, watcher: DispatchWatcher) -> None:
        self._replicas, self._config, self._watcher = replicas, config, watcher
        self._lanes: dict[str, _Lane] = {}
        self._by_load: list[tuple[int, int, str]] = []  # heap; entries whose load is no longer true are skipped
        self._numbers, self._ticks = itertools.count(1), itertools.count()
        self._again: deque[tuple[Request, ...]] = deque()
        self._suspects: deque[tuple[Request, ...]] = deque()
        self._flying = 0
        self._losses = 0  # in a row

    @property
    def busy(self) -> bool:
        """Whether requests are with replicas or wait to go there again."""
        return bool(self._flying or self._again or self._suspects)

    def forget_retries(self) -> None:
        """Drops what waits to run again: the run is being interrupted."""
        self._again.clear()
        self._suspects.clear()

    def has_room(self) -> bool:
        """Whether a replica can take another batch."""
        return self._least_loaded() is not None

    def place(self, requests: tuple[Request, ...]) -> None:
        """Hands requests to the replica with the least to do; `has_room` must hold."""
        name = self._least_loaded()
        if name is None:
            raise RuntimeError("no replica has room for a batch: ask has_room() first")
        self._submit(name, requests)

    def place_retries(self) -> bool:
        """Hands out what has to run again; returns whether there is room for fresh work after that."""
        while self._suspects and (name := self._least_loaded()) is not None:
            lane = self._lanes[name]
            waiting = sum(1 for other in self._lanes.values() if other.reserved and other.flying)
            if lane.flying and waiting >= len(self._suspects):
                break  # enough replicas are running dry for the suspects
            lane.reserved = True
            if not lane.flying:
                self._submit(name, self._suspects.popleft())
        while self._again and self.has_room():
            self.place(self._again.popleft())
        return self.has_room()

    def take_events(self, timeout_s: float) -> Iterator[Completion]:
        """Yields the completions that came, and the errors of rows that are given up."""
        for event in self._replicas.events(timeout_s):
            if isinstance(event, ReplicaReady):
                self._lanes[event.replica] = _Lane()
                self._rank(event.replica)
                self._watcher.replica_ready(event.replica, event.info)
            elif isinstance(event, ReplicaLost):
                yield from self._lost(event)
            else:
                yield from self._done(event)

    def _submit(self, name: str, requests: tuple[Request, ...]) -> None:
        number = next(self._numbers)
        self._lanes[name].flying[number] = requests
        self._flying += 1
        self._rank(name)
        self._replicas.submit(name, Batch(number, requests))

    def _rank(self, name: str) -> None:
        heapq.heappush(self._by_load, (len(self._lanes[name].flying), next(self._ticks), name))

    def _least_loaded(self) -> str | None:
        while self._by_load:
            load, _, name = self._by_load[0]
            lane = self._lanes.get(name)
            if lane is not None and not lane.reserved and len(lane.flying) == load and load < self._config.in_flight:
                return name
            heapq.heappop(self._by_load)
        return None

    def _done(self, event: BatchDone) -> Iterator[Completion]:
        lane = self._lanes.get(event.replica)
        requests = lane.flying.pop(event.result.batch, None) if lane else None
        if lane is None or requests is None:
            return  # a replica that was given up answers late: its batch runs, or ran, elsewhere
        self._flying -= 1
        self._losses = 0
        _check_refs(event, requests)
        if lane.reserved and not lane.flying:
            if self._suspects:
                self._submit(event.replica, self._suspects.popleft())
            else:
                lane.reserved = False
        self._rank(event.replica)
        self._watcher.replica_stats(event.replica, event.result.stats)
        for completion in event.result.completions:
            # An answered row looks the same however often its replica was lost before: the table of a disturbed run is the same.
            yield completion if completion.attempts == 1 else replace(completion, attempts=1)

    def _lost(self, event: ReplicaLost) -> Iterator[Completion]:
        lane = self._lanes.pop(event.replica, None)
        if lane is None:
            return
        self._watcher.replica_lost(event.replica, event.reason)
        self._losses += bool(lane.flying)
        if self._losses >= self._config.max_losses:
            raise ModelError(
                f"{self._losses} replicas in a row broke down at their first batch, so it is hardly the rows' fault; the last: "
                f"{event.reason}"
            )
        alone = lane.reserved and len(lane.flying) == 1
        for requests in lane.flying.values():
            self._flying -= 1
            if alone and len(requests) == 1 and requests[0].attempts >= self._config.max_attempts:
                yield _crashed(requests[0], event.reason)
            else:
                self._queue_again(requests)

    def _queue_again(self, requests: tuple[Request, ...]) -> None:
        tried = tuple(replace(request, attempts=request.attempts + 1) for request in requests)
        self._watcher.batch_retried(len(tried))
        losses = max(request.attempts for request in tried) - 1
        if losses < min(LOSSES_BEFORE_ISOLATION, self._config.max_attempts - 1):
            self._again.append(tried)
        elif len(tried) == 1:
            self._suspects.append(tried)
        else:
            half = len(tried) // 2
            self._suspects.extend((tried[:half], tried[half:]))


def _check_refs(event: BatchDone, requests: tuple[Request, ...]) -> None:
    asked = {request.ref for request in requests}
    answered = {completion.ref for completion in event.result.completions}
    if asked != answered or len(event.result.completions) != len(requests):
        missing, extra = asked - answered, answered - asked
        raise RuntimeError(
            f"replica {event.replica} answered batch {event.result.batch} with other rows than it was asked for: expected "
            f"{len(requests)}, got {len(event.result.completions)}, missing {sorted(missing)[:3]}, unknown {sorted(extra)[:3]}"
        )


def _crashed(request: Request, reason: str) -> Completion:
    message = f"the request, run alone, took its replica down and was tried {request.attempts} times; the last time: {reason}"
    return Completion.failed(request.ref, EngineCrashError.code, message, request.attempts)
