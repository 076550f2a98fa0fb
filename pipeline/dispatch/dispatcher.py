"""Batches → completions, over the replicas that are up.

Pull: a batch is requested only when a replica has capacity; it may wait for the replica with its
prefix. All retries happen here: batches of a lost replica are queued again. A batch that was lost
twice runs alone on a replica and is split into halves at each further loss, until the row that
crashes replicas runs alone and becomes an error. Once the input is exhausted, replicas without work
are retired, and a batch that takes much longer than usual is duplicated on a second replica: the
first answer counts. Before a limit on time or money is reached, nothing new is submitted, and each
replica is retired when its last batch ends. Does not depend on Ray: replicas are names behind the
protocol `Replicas`, which `actors/pool/replica_pool.py` implements over Ray and the tests over a
dictionary.
"""

import heapq
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic

from actors.protocol.errors import EngineCrashError, ModelError
from actors.protocol.events import (
    Assignment,
    BatchDone,
    Event,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import Batch, Completion, Request
from pipeline.dispatch.affinity import WaitingBatches
from pipeline.dispatch.limits import LIMIT_REACHED, NO_LIMITS, Limits
from pipeline.dispatch.replicas import NO_WORK_LEFT, DispatchWatcher, Replicas
from pipeline.errors import InterruptedRunError
from pipeline.records import Passing

# A lost replica takes innocent batches with it; a batch that was lost twice is suspect.
LOSSES_BEFORE_ISOLATION = 2
# At the tail, one idle replica stays for this many busy ones, for batches that are lost or late.
BUSY_PER_SPARE = 20
DURATIONS_REMEMBERED = 64  # of batches; their median is the usual duration
# Batches that may wait for the replica that owns their prefix.
WAITING_PER_REPLICA = 8
MAX_WAITING = 1024


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """Limits of dispatch.

    Raises:
        ValueError: `in_flight` or `max_attempts` is below 1.
    """

    in_flight: int = 2  # batches on each replica: one runs, the next one waits
    max_attempts: int = 3  # of a row whose replica is lost
    poll_s: float = 1.0
    # Replicas lost in a row, with no batch answered in between: then the rows are not to blame.
    max_losses: int = 12
    # At the tail, a batch that takes this many times the usual duration gets a second replica,
    late_factor: float = 3.0
    late_s: float = 10.0  # but not before this.
    # When interrupted, how long to wait for the batches that replicas already hold.
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
    limits: Limits = NO_LIMITS,
) -> Iterator[Completion | Passing]:
    """Yields exactly one completion per request, in the order in which they are answered.

    All other items of `batches` pass through.

    Raises:
        InterruptedRunError: `interrupted` became true; what replicas answered within `grace_s` was
            yielded before.
        LimitReachedError: rows remain that would exceed a limit; what replicas held was yielded
            before.
        ModelError: no replica can ever work, or `max_losses` of them were lost in a row while none
            answered a batch.
        RuntimeError: a replica answered other rows than its batch has.
    """
    state = DispatchState(replicas, config, watcher)
    source = _Source(batches)
    ending = _Ending(state, source, config, interrupted, limits)

    while source.is_open or state.waiting or state.is_busy:
        if ending.is_over():
            break

        has_room = state.place_retries()
        can_place = has_room and (source.is_open or state.waiting > 0)
        yield from state.take_events(0.0 if can_place else config.poll_s)
        watcher.batches_in_flight(state.in_flight)
        if not source.is_open and not state.waiting and not ending.has_begun:
            state.trim()
        if can_place:
            yield from _place_one(state, source)

    ending.check()


class _Source(Generic[Passing]):
    """The stream of batches, which ends or is closed."""

    def __init__(self, batches: Iterable[Batch | Passing]) -> None:
        self._batches = iter(batches)
        self.is_open = True

    def next(self) -> Batch | Passing | None:
        """Returns the next item; None closes the source."""
        item = next(self._batches, None)
        if item is None:
            self.close()
        return item

    def close(self) -> None:
        """Draws nothing more."""
        self.is_open = False


class _Ending(Generic[Passing]):
    """The end of a run before its last row: at a signal, or before a limit is reached."""

    def __init__(
        self,
        state: "DispatchState",
        source: _Source[Passing],
        config: DispatchConfig,
        interrupted: Callable[[], bool],
        limits: Limits,
    ) -> None:
        self._state = state
        self._source = source
        self._config = config
        self._interrupted = interrupted
        self._limits = limits
        self._deadline_s: float | None = None  # of an interrupted run
        self._is_draining = False  # a limit is near

    @property
    def has_begun(self) -> bool:
        """Whether nothing new is submitted any more."""
        return self._deadline_s is not None or self._is_draining

    def is_over(self) -> bool:
        """Returns whether the run ends now; closes the source when the end begins."""
        return self._is_interrupted() or self._is_drained()

    def check(self) -> None:
        """Raises the reason if rows were left out.

        Raises:
            InterruptedRunError: the run was interrupted.
            LimitReachedError: rows remain that would exceed a limit.
        """
        if self._deadline_s is not None:
            raise InterruptedRunError(
                "the run was interrupted; committed shards are kept, the same command continues it"
            )
        if self._is_draining:
            self._state.drain(is_over=True)
        if self._state.has_dropped:
            raise self._limits.error()

    def _is_interrupted(self) -> bool:
        """Returns whether an interrupted run has waited for what replicas hold."""
        if self._deadline_s is None and self._interrupted():
            self._source.close()
            self._deadline_s = self._config.clock() + self._config.grace_s
        if self._deadline_s is None:
            return False

        self._state.forget_waiting()
        return self._config.clock() > self._deadline_s or not self._state.is_busy

    def _is_drained(self) -> bool:
        """Returns whether a run near a limit has waited for what replicas hold."""
        if not self._is_draining and self._limits.reached(self._state.longest_batch_s):
            self._is_draining = True
            self._state.has_dropped |= self._source.is_open
            self._source.close()
        if not self._is_draining:
            return False

        self._state.drain(is_over=self._limits.reached())
        if self._limits.expired():
            self._state.has_dropped |= self._state.is_busy
            return True
        return not self._state.is_busy


def _place_one(state: "DispatchState", source: _Source[Passing]) -> Iterator[Passing]:
    """Submits one waiting batch, drawing from the source until one fits a replica with room.

    Yields the other items of the source on the way.
    """
    while state.has_room():
        is_placed = state.place_waiting(steal=not source.is_open)
        if is_placed or not source.is_open:
            return
        item = source.next()
        if isinstance(item, Batch):
            state.add(item)
        elif item is not None:
            yield item


@dataclass(frozen=True, slots=True)
class RetryBatch:
    """A batch that has to run again."""

    batch: Batch
    losses: int  # replicas that were lost while they held it, and that it may have killed


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch that one replica holds or, when that one is late, two."""

    batch: Batch
    losses: int  # as in `RetryBatch`
    submitted_s: float
    holders: dict[str, int] = field(default_factory=dict)  # replica → number of the assignment


@dataclass(slots=True)
class ReplicaState:
    """One replica as dispatch sees it."""

    in_flight: dict[int, InFlightBatch] = field(default_factory=dict)  # by assignment number
    # Takes no ordinary batches: a suspect runs on it alone, or will once it is idle.
    is_reserved: bool = False
    leaving_reason: str | None = None  # takes no batches at all
    has_answered: bool = False


class DispatchState:
    """Replicas, the batches they hold, and the batches that have to run again."""

    def __init__(
        self, replicas: Replicas, config: DispatchConfig, watcher: DispatchWatcher
    ) -> None:
        self._replicas = replicas
        self._config = config
        self._watcher = watcher
        self._states: dict[str, ReplicaState] = {}
        # Heap of (batches in flight, tick, replica); outdated entries are skipped.
        self._by_load: list[tuple[int, int, str]] = []
        self._ticks = itertools.count()
        self._numbers = itertools.count(1)  # of assignments
        self._waiting = WaitingBatches()  # never submitted yet
        self._retries: deque[RetryBatch] = deque()
        self._suspects: deque[RetryBatch] = deque()  # run alone on a replica
        self._in_flight = 0
        self._is_over = False  # a limit is reached: replicas end with the batch that they run
        self.has_dropped = False  # batches that a limit keeps from being run
        self._losses_in_a_row = 0
        self._durations_s: deque[float] = deque(maxlen=DURATIONS_REMEMBERED)
        self._next_trim_s = 0.0

    @property
    def in_flight(self) -> int:
        """Batches that replicas hold; a batch on two replicas counts once."""
        return self._in_flight

    @property
    def is_busy(self) -> bool:
        """Whether batches are with replicas or have to run again."""
        return bool(self._in_flight or self._retries or self._suspects)

    @property
    def waiting(self) -> int:
        """Batches that were drawn and never submitted."""
        return len(self._waiting)

    @property
    def longest_batch_s(self) -> float:
        """Longest time between submission and answer of the last batches; 0 before the first."""
        return max(self._durations_s, default=0.0)

    def forget_waiting(self) -> None:
        """Drops the batches that no replica holds: the run is being interrupted."""
        self._waiting = WaitingBatches()
        self._retries.clear()
        self._suspects.clear()

    def drain(self, *, is_over: bool) -> None:
        """Drops the batches that no replica holds, and retires replicas without a batch.

        Args:
            is_over: the limit is reached, not only near: each replica ends after one more batch,
                whatever else it holds.
        """
        self._is_over = self._is_over or is_over
        if self._waiting or self._retries or self._suspects:
            self.has_dropped = True
        self.forget_waiting()

        idle: list[str] = []
        for name, replica in self._states.items():
            if not replica.in_flight:
                idle.append(name)
        for name in idle:
            self._retire(name, LIMIT_REACHED)
        self._replicas.want(len(self._states))

    def has_room(self) -> bool:
        """Whether a replica can take another batch."""
        return self._least_loaded() is not None

    def add(self, batch: Batch) -> None:
        """Adds a batch that was drawn."""
        self._waiting.add(batch)

    def place_waiting(self, *, steal: bool) -> bool:
        """Submits a waiting batch to the least loaded replica; returns whether one fits.

        Without `steal`, a batch whose prefix another replica owns waits for that replica, unless
        many batches wait already.
        """
        name = self._least_loaded()
        if name is None:
            return False

        limit = min(MAX_WAITING, WAITING_PER_REPLICA * len(self._states))
        batch = self._waiting.take(name, limit, steal=steal)
        if batch is None:
            return False

        self._submit(name, RetryBatch(batch, losses=0))
        return True

    def place_retries(self) -> bool:
        """Submits what has to run again; returns whether there is room for new batches then."""
        while self._suspects and (name := self._least_loaded()) is not None:
            replica = self._states[name]
            if replica.in_flight and self._draining_for_suspects() >= len(self._suspects):
                break
            replica.is_reserved = True
            if not replica.in_flight:
                self._submit(name, self._suspects.popleft())

        while self._retries and (name := self._least_loaded()) is not None:
            self._submit(name, self._retries.popleft())
        return self.has_room()

    def take_events(self, timeout_s: float) -> Iterator[Completion]:
        """Yields the completions that arrived, and errors for rows without attempts left."""
        for event in self._replicas.events(timeout_s):
            yield from self._handle(event)

    def trim(self) -> None:
        """At the tail, gives late batches a second replica and retires replicas without work."""
        now_s = self._config.clock()
        if now_s < self._next_trim_s or self._retries or self._suspects or not self._in_flight:
            return

        self._next_trim_s = now_s + self._config.poll_s
        idle = []
        busy_count = 0
        for name, replica in self._states.items():
            if not replica.in_flight and replica.leaving_reason is None:
                idle.append(name)
        if idle:
            idle = self._duplicate_late_batches(idle, now_s)
        for replica in self._states.values():
            busy_count += bool(replica.in_flight)

        spare_count = -(-busy_count // BUSY_PER_SPARE)
        self._replicas.want(busy_count + spare_count)
        for name in idle[spare_count:]:
            self._retire(name, NO_WORK_LEFT)

    # -- submitting --------------------------------------------------------------------------------

    def _submit(self, name: str, retry: RetryBatch) -> None:
        self._in_flight += 1
        self._send(name, InFlightBatch(retry.batch, retry.losses, self._config.clock()))

    def _send(self, name: str, in_flight: InFlightBatch) -> None:
        number = next(self._numbers)
        self._states[name].in_flight[number] = in_flight
        in_flight.holders[name] = number
        self._push_load(name)
        self._replicas.submit(Assignment(number, in_flight.batch, name))

    def _draining_for_suspects(self) -> int:
        """Returns how many reserved replicas still hold batches."""
        return sum(1 for state in self._states.values() if state.is_reserved and state.in_flight)

    def _duplicate_late_batches(self, idle: list[str], now_s: float) -> list[str]:
        """Submits late batches to idle replicas as well; returns the replicas that stay idle."""
        if not self._durations_s:
            return idle

        usual_s = statistics.median(self._durations_s)
        late_s = max(self._config.late_s, self._config.late_factor * usual_s)
        late = []
        for replica in self._states.values():
            if replica.is_reserved:
                continue
            for in_flight in replica.in_flight.values():
                is_late = now_s - in_flight.submitted_s > late_s
                # A batch that was lost before may be what kills replicas: it gets no second one.
                if is_late and len(in_flight.holders) == 1 and in_flight.losses == 0:
                    late.append(in_flight)

        late.sort(key=lambda in_flight: in_flight.submitted_s)
        for name, in_flight in zip(idle, late, strict=False):
            self._send(name, in_flight)
        return idle[len(late) :]

    def _push_load(self, name: str) -> None:
        load = len(self._states[name].in_flight)
        heapq.heappush(self._by_load, (load, next(self._ticks), name))

    def _least_loaded(self) -> str | None:
        """Returns an open replica with room and the fewest batches."""
        while self._by_load:
            load, _, name = self._by_load[0]
            replica = self._states.get(name)
            is_current = replica is not None and len(replica.in_flight) == load
            if is_current and load < self._config.in_flight and self._is_open(name):
                return name
            heapq.heappop(self._by_load)  # freed replicas are pushed again
        return None

    def _is_open(self, name: str) -> bool:
        """Whether a replica takes ordinary batches."""
        replica = self._states[name]
        return not replica.is_reserved and replica.leaving_reason is None

    # -- events ------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> Iterator[Completion]:
        if isinstance(event, ReplicaReady):
            self._states[event.replica] = ReplicaState()
            self._push_load(event.replica)
            self._watcher.replica_ready(event.replica, event.info)
        elif isinstance(event, ReplicaLost):
            yield from self._lost(event)
        elif isinstance(event, ReplicaLeaving):
            self._leaving(event)
        else:
            yield from self._done(event)

    def _leaving(self, event: ReplicaLeaving) -> None:
        replica = self._states.get(event.replica)
        if replica is not None:
            replica.leaving_reason = event.reason
            self._freed(event.replica)

    def _freed(self, name: str) -> None:
        """Gives a replica that holds fewer batches the next suspect, retires it, or opens it."""
        replica = self._states[name]
        if self._is_over:
            self._abandon(name)
        elif replica.in_flight:
            self._push_load(name)
        elif replica.leaving_reason is not None:
            self._retire(name, replica.leaving_reason)
        elif replica.is_reserved and self._suspects:
            self._submit(name, self._suspects.popleft())
        else:
            replica.is_reserved = False
            self._push_load(name)

    def _abandon(self, name: str) -> None:
        """Ends a replica with the batches that it holds and has not begun."""
        for in_flight in self._states.pop(name).in_flight.values():
            del in_flight.holders[name]
            if not in_flight.holders:
                self._in_flight -= 1
                self.has_dropped = True
        self._waiting.forget(name)
        self._replicas.abandon(name)
        self._watcher.replica_retired(name, LIMIT_REACHED)

    def _retire(self, name: str, reason: str) -> None:
        del self._states[name]
        self._waiting.forget(name)
        self._replicas.retire(name)
        self._watcher.replica_retired(name, reason)

    def _done(self, event: BatchDone) -> Iterator[Completion]:
        replica = self._states.get(event.assignment.replica)
        if replica is None:
            return  # a late answer of a lost replica: another replica runs its batch, or has run it
        self._watcher.replica_stats(event.assignment.replica, event.result.stats)
        in_flight = replica.in_flight.get(event.assignment.number)
        if in_flight is None:
            return  # the other replica that held this batch was faster

        _check_refs(event, in_flight.batch.requests)
        replica.has_answered = True
        self._in_flight -= 1
        self._losses_in_a_row = 0
        self._durations_s.append(self._config.clock() - in_flight.submitted_s)
        for name, number in in_flight.holders.items():
            del self._states[name].in_flight[number]
            self._freed(name)

        requests = {request.ref: request for request in in_flight.batch.requests}
        for completion in event.result.completions:
            request = requests[completion.ref]
            if completion.error_code is not None:
                yield replace(completion, row_id=request.row_id)
            elif request.prompt_bytes is not None:
                yield replace(completion, prompt_bytes=request.prompt_bytes)
            else:
                yield completion

    def _lost(self, event: ReplicaLost) -> Iterator[Completion]:
        self._watcher.replica_lost(event.replica, event.reason)
        replica = self._states.pop(event.replica, None)
        self._waiting.forget(event.replica)
        if replica is None:
            return  # it never came up

        lost_batches = list(replica.in_flight.values())
        if event.blame == "replica" and lost_batches and not replica.has_answered:
            self._count_loss(event.reason)

        ran_alone = replica.is_reserved and len(lost_batches) == 1
        for in_flight in lost_batches:
            del in_flight.holders[event.replica]
            if in_flight.holders:
                continue  # another replica holds it, too
            self._in_flight -= 1
            if event.blame == "nobody":
                self._retry_blameless(in_flight, ran_alone=ran_alone)
            elif ran_alone and self._is_given_up(in_flight):
                yield _crashed(in_flight, event.reason)
            else:
                self._retry(in_flight)

    def _count_loss(self, reason: str) -> None:
        """Counts a replica that was lost before it answered anything.

        The loss of many that had answered is a fault of machines and does not count.
        """
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= self._config.max_losses:
            raise ModelError(
                f"{self._losses_in_a_row} replicas in a row broke down at their first batch, so "
                f"the rows are hardly to blame; the last: {reason}"
            )

    def _is_given_up(self, in_flight: InFlightBatch) -> bool:
        attempts = in_flight.losses + 1
        return len(in_flight.batch.requests) == 1 and attempts >= self._config.max_attempts

    def _retry_blameless(self, in_flight: InFlightBatch, *, ran_alone: bool) -> None:
        """Queues a batch again without counting the loss: the cluster took the machine back."""
        self._watcher.batch_retried(len(in_flight.batch.requests))
        queue = self._suspects if ran_alone else self._retries
        queue.append(RetryBatch(in_flight.batch, in_flight.losses))

    def _retry(self, in_flight: InFlightBatch) -> None:
        """Queues a batch again: as it is, to run alone, or in halves to run alone."""
        requests = in_flight.batch.requests
        losses = in_flight.losses + 1
        self._watcher.batch_retried(len(requests))

        if losses < min(LOSSES_BEFORE_ISOLATION, self._config.max_attempts - 1):
            self._retries.append(RetryBatch(in_flight.batch, losses))
        elif len(requests) == 1:
            self._suspects.append(RetryBatch(in_flight.batch, losses))
        else:
            middle = len(requests) // 2
            for half in (requests[:middle], requests[middle:]):
                batch = Batch(half, in_flight.batch.prefix_key)
                self._suspects.append(RetryBatch(batch, losses))


def _check_refs(event: BatchDone, requests: tuple[Request, ...]) -> None:
    completions = event.result.completions
    expected = {request.ref for request in requests}
    answered = {completion.ref for completion in completions}
    if expected == answered and len(completions) == len(requests):
        return

    missing = sorted(expected - answered)
    extra = sorted(answered - expected)
    raise RuntimeError(
        f"replica {event.assignment.replica} answered batch {event.assignment.number} with other "
        f"rows than requested: expected {len(requests)} completions, got {len(completions)}; "
        f"missing {missing[:3]}, unknown {extra[:3]}"
    )


def _crashed(in_flight: InFlightBatch, reason: str) -> Completion:
    (request,) = in_flight.batch.requests
    attempts = in_flight.losses + 1
    message = (
        f"the request, run alone, took its replica down and was tried {attempts} times; the last "
        f"time: {reason}"
    )
    return Completion.failed(
        request.ref,
        EngineCrashError.code,
        message,
        attempts=attempts,
        row_id=request.row_id,
    )
