"""Batches → completions, over whatever replicas there are.

Pull: a batch is drawn only when a replica has room, and waits a while for the one that holds its
prefix, if there is one. Retry stays inside: a lost replica's batches are queued again, a batch that
was lost twice runs alone on its replica and is halved when it is lost again, until the row that
kills replicas stands alone and is answered with an error. Once the input is exhausted, replicas
without work are let go, and a batch that takes much longer than usual gets a second replica: the
first answer counts. Knows no Ray, no shapes and no text: replicas are names behind the protocol
`Replicas`, which `actors/pool/replica_pool.py` fulfils over Ray and the tests over a dictionary.
"""

import heapq
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from actors.protocol.errors import EngineCrashError, ModelError
from actors.protocol.events import BatchDone, ReplicaLeaving, ReplicaLost, ReplicaReady
from actors.protocol.messages import Batch, Completion, Request
from pipeline.dispatch.affinity import Waiting
from pipeline.dispatch.replicas import NO_WORK_LEFT, DispatchWatcher, Replicas
from pipeline.errors import InterruptedRunError
from pipeline.records import Passing

# a lost replica takes innocent batches with it; lost twice, a batch is suspect
LOSSES_BEFORE_ISOLATION = 2
# at the tail, one idle replica stays for so many busy ones: for what is lost or late
BUSY_PER_SPARE = 20
BATCHES_REMEMBERED = 64  # whose durations say what is usual
# batches that may wait for the replica that holds their prefix
WAITING_PER_REPLICA, MOST_WAITING = 8, 1024


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """How hard to work and how long to try."""

    in_flight: int = 2  # batches on each replica: one runs, the next lies ready
    max_attempts: int = 3
    poll_s: float = 1.0
    # replicas lost in a row, no batch answered in between: then it is not the rows' fault
    max_losses: int = 12
    # at the tail, a batch that takes so many times the usual gets a second replica
    late_factor: float = 3.0
    late_s: float = 10.0  # but not before it has taken so long
    # when interrupted, how long to wait for the batches that replicas already hold
    grace_s: float = 20.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.max_attempts < 1:
            raise ValueError(
                f"in_flight and max_attempts must be at least 1, got {self.in_flight} and "
                f"{self.max_attempts}"
            )


def run_batches(
    batches: Iterable[Batch | Passing],
    replicas: Replicas,
    config: DispatchConfig,
    watcher: DispatchWatcher,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Completion | Passing]:
    """Yields exactly one completion per request, in the order in which they are answered.

    All other items of `batches` pass through.

    Raises:
        InterruptedRunError: `interrupted` became true; what replicas answered within `grace_s` was yielded before.
        ModelError: no replica can ever work, or `max_losses` of them were lost in a row while none answered a batch.
        RuntimeError: a replica answered other rows than it was asked for.
    """
    source, drawing, deadline = iter(batches), True, None
    state = _DispatchState(replicas, config, watcher)
    while drawing or state.waiting or state.busy:
        if deadline is None and interrupted():
            drawing, deadline = False, config.clock() + config.grace_s
        if deadline is not None:
            state.forget_waiting()
            if config.clock() > deadline or not state.busy:
                break
        can_place = state.place_retries() and (drawing or state.waiting > 0)
        yield from state.take_events(0.0 if can_place else config.poll_s)
        watcher.batches_in_flight(state.in_flight)
        if not drawing and not state.waiting and deadline is None:
            state.trim()
        while (
            can_place
            and state.has_room()
            and not state.place_waiting(steal=not drawing)
            and drawing
        ):
            item = next(source, None)
            if item is None:
                drawing = False
            elif isinstance(item, Batch):
                state.add(item)
            else:
                yield item
    if deadline is not None:
        raise InterruptedRunError(
            "the run was interrupted; committed shards are kept, the same command continues it"
        )


@dataclass(slots=True, eq=False)
class _InFlightBatch:
    """A batch on its way, with one replica or, when that one is late, with two."""

    requests: tuple[Request, ...]
    began_s: float
    holders: dict[str, int] = field(default_factory=dict)  # replica → batch number there


@dataclass(slots=True)
class _ReplicaState:
    """One replica as dispatch sees it."""

    in_flight: dict[int, _InFlightBatch] = field(default_factory=dict)  # by batch number
    # takes no more ordinary work: a suspect runs on it alone, or will once it is idle
    reserved: bool = False
    leaving: str | None = None  # takes no more work at all, for this reason
    proven: bool = False  # has answered a batch


class _DispatchState:
    """Replicas, the batches they hold, and the batches that have to run again."""

    def __init__(
        self, replicas: Replicas, config: DispatchConfig, watcher: DispatchWatcher
    ) -> None:
        self._replicas, self._config, self._watcher = replicas, config, watcher
        self._replica_states: dict[str, _ReplicaState] = {}
        # heap; entries whose load is no longer true are skipped
        self._by_load: list[tuple[int, int, str]] = []
        self._numbers, self._ticks = itertools.count(1), itertools.count()
        self._again: deque[tuple[Request, ...]] = deque()
        self._suspects: deque[tuple[Request, ...]] = deque()
        self._waiting = Waiting()  # drawn, and not tried yet
        self.in_flight = 0  # batches; copies are not counted
        self._losses = 0  # in a row
        self._durations: deque[float] = deque(maxlen=BATCHES_REMEMBERED)
        self._trim_s = 0.0

    @property
    def busy(self) -> bool:
        """Whether requests are with replicas or wait to go there again."""
        return bool(self.in_flight or self._again or self._suspects)

    @property
    def waiting(self) -> int:
        """Batches that were drawn and that no replica has seen yet."""
        return len(self._waiting)

    def forget_waiting(self) -> None:
        """Drops what waits to run, or to run again: the run is being interrupted."""
        self._waiting = Waiting()
        self._again.clear()
        self._suspects.clear()

    def has_room(self) -> bool:
        """Whether a replica can take another batch."""
        return self._least_loaded() is not None

    def add(self, batch: Batch) -> None:
        """Takes in a batch that was drawn."""
        self._waiting.add(batch)

    def place_waiting(self, *, steal: bool) -> bool:
        """Hands the replica with the least to do a batch that suits it; returns whether one did.

        Without `steal`, a batch whose prefix another replica holds waits for that one, unless many wait already.
        """
        name = self._least_loaded()
        limit = min(MOST_WAITING, WAITING_PER_REPLICA * len(self._replica_states))
        batch = self._waiting.take(name, limit, steal=steal) if name is not None else None
        if name is None or batch is None:
            return False
        self._submit(name, batch.requests)
        return True

    def place_retries(self) -> bool:
        """Hands out what has to run again.

        Returns whether there is room for fresh work after that.
        """
        while self._suspects and (name := self._least_loaded()) is not None:
            replica_state = self._replica_states[name]
            waiting = sum(
                1 for other in self._replica_states.values() if other.reserved and other.in_flight
            )
            if replica_state.in_flight and waiting >= len(self._suspects):
                break  # enough replicas are running dry for the suspects
            replica_state.reserved = True
            if not replica_state.in_flight:
                self._submit(name, self._suspects.popleft())
        while self._again and (name := self._least_loaded()) is not None:
            self._submit(name, self._again.popleft())
        return self.has_room()

    def take_events(self, timeout_s: float) -> Iterator[Completion]:
        """Yields the completions that came, and the errors of rows that are given up."""
        for event in self._replicas.events(timeout_s):
            if isinstance(event, ReplicaReady):
                self._replica_states[event.replica] = _ReplicaState()
                self._rank(event.replica)
                self._watcher.replica_ready(event.replica, event.info)
            elif isinstance(event, ReplicaLost):
                yield from self._lost(event)
            elif isinstance(event, ReplicaLeaving):
                self._leave(event)
            else:
                yield from self._done(event)

    def trim(self) -> None:
        """At the tail: gives late batches a second replica and lets replicas go that will not be needed any more."""
        now_s = self._config.clock()
        if now_s < self._trim_s or self._again or self._suspects or not self.in_flight:
            return
        self._trim_s = now_s + self._config.poll_s
        idle = [
            name
            for name, replica_state in self._replica_states.items()
            if not replica_state.in_flight and replica_state.leaving is None
        ]
        if idle:
            idle = self._second(idle, now_s)
        busy = sum(1 for replica_state in self._replica_states.values() if replica_state.in_flight)
        spare = -(-busy // BUSY_PER_SPARE)
        self._replicas.want(busy + spare)
        for name in idle[spare:]:
            self._retire(name, NO_WORK_LEFT)

    def _second(self, idle: list[str], now_s: float) -> list[str]:
        """Hands late batches to idle replicas as well; returns the replicas that stay idle."""
        if not self._durations:
            return idle
        late_s = max(
            self._config.late_s, self._config.late_factor * statistics.median(self._durations)
        )
        batches = (
            batch
            for replica_state in self._replica_states.values()
            if not replica_state.reserved
            for batch in replica_state.in_flight.values()
        )
        # A batch that was lost before may be what kills replicas: it gets no second one.
        late = [
            each
            for each in batches
            if len(each.holders) == 1 and now_s - each.began_s > late_s and not _tried(each)
        ]
        late.sort(key=lambda batch: batch.began_s)
        for name, batch in zip(idle, late, strict=False):
            self._send(name, batch)
        return idle[len(late) :]

    def _submit(self, name: str, requests: tuple[Request, ...]) -> None:
        self.in_flight += 1
        self._send(name, _InFlightBatch(requests, self._config.clock()))

    def _send(self, name: str, batch: _InFlightBatch) -> None:
        number = next(self._numbers)
        self._replica_states[name].in_flight[number] = batch
        batch.holders[name] = number
        self._rank(name)
        self._replicas.submit(name, Batch(number, batch.requests))

    def _retire(self, name: str, reason: str) -> None:
        del self._replica_states[name]
        self._waiting.forget(name)
        self._replicas.retire(name)
        self._watcher.replica_retired(name, reason)

    def _leave(self, event: ReplicaLeaving) -> None:
        replica_state = self._replica_states.get(event.replica)
        if replica_state is not None:
            replica_state.leaving = event.reason
            self._freed(event.replica)

    def _freed(self, name: str) -> None:
        """A replica may take more now, or the next suspect, or it goes as it should."""
        replica_state = self._replica_states[name]
        if replica_state.in_flight:
            self._rank(name)
        elif replica_state.leaving is not None:
            self._retire(name, replica_state.leaving)
        elif replica_state.reserved and self._suspects:
            self._submit(name, self._suspects.popleft())
        else:
            replica_state.reserved = False
            self._rank(name)

    def _rank(self, name: str) -> None:
        heapq.heappush(
            self._by_load, (len(self._replica_states[name].in_flight), next(self._ticks), name)
        )

    def _least_loaded(self) -> str | None:
        while self._by_load:
            load, _, name = self._by_load[0]
            replica_state = self._replica_states.get(name)
            if (
                replica_state is not None
                and _open(replica_state)
                and len(replica_state.in_flight) == load
                and load < self._config.in_flight
            ):
                return name
            heapq.heappop(self._by_load)
        return None

    def _done(self, event: BatchDone) -> Iterator[Completion]:
        replica_state = self._replica_states.get(event.replica)
        if replica_state is None:
            return  # a replica that was given up answers late: its batch runs, or ran, elsewhere
        self._watcher.replica_stats(event.replica, event.result.stats)
        batch = replica_state.in_flight.get(event.result.batch)
        if batch is None:
            return  # the other replica that held this batch was faster
        _check_refs(event, batch.requests)
        replica_state.proven = True
        self.in_flight -= 1
        self._losses = 0
        self._durations.append(self._config.clock() - batch.began_s)
        for name, number in batch.holders.items():
            del self._replica_states[name].in_flight[number]
            self._freed(name)
        row_ids = {request.ref: request.row_id for request in batch.requests}
        for completion in event.result.completions:
            if completion.error_code is None:
                yield completion
            else:
                yield replace(completion, row_id=row_ids[completion.ref])

    def _lost(self, event: ReplicaLost) -> Iterator[Completion]:
        self._watcher.replica_lost(event.replica, event.reason)
        replica_state = self._replica_states.pop(event.replica, None)
        self._waiting.forget(event.replica)
        if replica_state is None:
            return  # it never came up
        for batch in replica_state.in_flight.values():
            del batch.holders[event.replica]
        if event.blame == "replica" and replica_state.in_flight and not replica_state.proven:
            self._count_loss(event.reason)
        alone = replica_state.reserved and len(replica_state.in_flight) == 1
        for batch in replica_state.in_flight.values():
            if batch.holders:
                continue  # another replica runs it, too
            self.in_flight -= 1
            requests = batch.requests
            if event.blame == "nobody":
                self._watcher.batch_retried(len(requests))
                (self._suspects if alone else self._again).append(requests)
            elif alone and len(requests) == 1 and requests[0].attempts >= self._config.max_attempts:
                yield _crashed(requests[0], event.reason)
            else:
                self._queue_again(requests)

    def _count_loss(self, reason: str) -> None:
        """Counts replicas that break before they answer anything.

        Many at once that had worked are a fault of machines.
        """
        self._losses += 1
        if self._losses >= self._config.max_losses:
            raise ModelError(
                f"{self._losses} replicas in a row broke down at their first batch, so it is "
                "hardly the rows' fault; the last: "
                f"{reason}"
            )

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


def _open(replica_state: _ReplicaState) -> bool:
    return not replica_state.reserved and replica_state.leaving is None


def _tried(batch: _InFlightBatch) -> bool:
    return any(request.attempts > 1 for request in batch.requests)


def _check_refs(event: BatchDone, requests: tuple[Request, ...]) -> None:
    asked = {request.ref for request in requests}
    answered = {completion.ref for completion in event.result.completions}
    if asked != answered or len(event.result.completions) != len(requests):
        missing, extra = asked - answered, answered - asked
        raise RuntimeError(
            f"replica {event.replica} answered batch {event.result.batch} with other rows than it "
            "was asked for: expected "
            f"{len(requests)}, got {len(event.result.completions)}, missing {sorted(missing)[:3]}, "
            f"unknown {sorted(extra)[:3]}"
        )


def _crashed(request: Request, reason: str) -> Completion:
    message = f"the request, run alone, took its replica down and was tried {request.attempts} times; the last time: {reason}"
    return Completion.failed(
        request.ref, EngineCrashError.code, message, request.attempts, row_id=request.row_id
    )
