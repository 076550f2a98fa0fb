"""Simulates replicas and their time, for measurements of the driver alone.

A simulated replica works on its batches one after the other, each for a random time; it may be a
straggler, and it may be lost and replaced. The clock of the simulation runs while the driver works
and jumps when the driver would wait. It excludes the time of the simulation itself.
"""

import heapq
import itertools
import random
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from actors.protocol.events import Assignment, BatchDone, Event, ReplicaLost, ReplicaReady
from actors.protocol.messages import (
    BatchResult,
    Completion,
    ReplicaStats,
    Request,
    Score,
    logprobs,
    token_ids,
)
from jobs.benchmarks.driver_config import DriverBenchmarkConfig

VOCABULARY = 131_072
RESPAWN_S = 60.0  # until the replacement of a lost replica is loaded
SERVICE_SHAPE = 4.0  # of the gamma distribution of service times


@dataclass(slots=True)
class SimulatedClock:
    """Seconds in which the driver worked, and seconds in which it would have waited."""

    simulation_s: float = 0.0  # real time that the simulation took
    simulation_cpu_s: float = 0.0
    waited_s: float = 0.0
    started_s: float = field(default_factory=time.perf_counter)
    started_cpu_s: float = field(default_factory=time.process_time)

    @property
    def driver_s(self) -> float:
        """Real time of the driver so far."""
        return time.perf_counter() - self.started_s - self.simulation_s

    @property
    def driver_cpu_s(self) -> float:
        """Processor time of all threads of the driver so far, as on an otherwise idle machine."""
        return time.process_time() - self.started_cpu_s - self.simulation_cpu_s

    def now(self) -> float:
        """Returns the simulated time."""
        return self.driver_s + self.waited_s

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Excludes the block from the driver's time."""
        started_s = time.perf_counter()
        started_cpu_s = time.thread_time()
        yield
        self.simulation_s += time.perf_counter() - started_s
        self.simulation_cpu_s += time.thread_time() - started_cpu_s


@dataclass(slots=True)
class _SimulatedReplica:
    free_s: float  # when all of its batches are done
    up_since_s: float
    assignments: dict[int, Assignment] = field(default_factory=dict)
    busy_s: float = 0.0


Transition = Literal["ready", "lost", "done"]


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    """An event of the simulation, ordered by time and then by creation."""

    time_s: float
    order: int
    transition: Transition = field(compare=False)
    replica: str = field(compare=False)
    batch: int = field(default=-1, compare=False)  # number, for "done"


class SimulatedReplicas:
    """Implements dispatch's `Replicas` on simulated time."""

    def __init__(self, config: DriverBenchmarkConfig, clock: SimulatedClock) -> None:
        self._config = config
        self._clock = clock
        self._random = random.Random(config.seed)
        self._replicas: dict[str, _SimulatedReplica] = {}
        self._starting: set[str] = set()
        self._due: list[_Due] = []  # heap
        self._order = itertools.count()
        self._names = itertools.count()
        self.batches = 0
        self.losses = 0
        self.busy_s = 0.0
        self.up_s = 0.0
        self.last_submit_s = 0.0
        for _ in range(config.replicas):
            self._start(0.0)

    @property
    def up(self) -> int:
        """Replicas that can take batches now."""
        return len(self._replicas)

    @property
    def wanted(self) -> int:
        """Replicas that the run uses if the cluster has room."""
        return self._config.replicas

    def submit(self, assignment: Assignment) -> None:
        """Takes a batch; it is done when the replica has done all batches before it."""
        now_s = self._clock.now()
        self.batches += 1
        self.last_submit_s = now_s
        simulated = self._replicas.get(assignment.replica)
        if simulated is None:
            return  # its loss is the next event

        with self._clock.excluded():
            service_s = self._service_s()
            simulated.free_s = max(now_s, simulated.free_s) + service_s
            simulated.busy_s += service_s
            simulated.assignments[assignment.number] = assignment
            self._schedule(simulated.free_s, "done", assignment.replica, assignment.number)

    def _service_s(self) -> float:
        mean_s = self._config.service_s
        service_s = self._random.gammavariate(SERVICE_SHAPE, mean_s / SERVICE_SHAPE)
        if self._random.random() < self._config.slow_share:
            service_s *= self._config.slow_factor
        return service_s

    def want(self, count: int) -> None:
        """Cancels replacements that are starting, beyond `count` replicas in all."""
        while self._starting and len(self._replicas) + len(self._starting) > count:
            self._starting.pop()

    def retire(self, replica: str) -> None:
        """Stops an idle replica."""
        self._stop(replica, self._clock.now())

    def abandon(self, replica: str) -> None:
        """Stops a replica; its batches are lost."""
        self._stop(replica, self._clock.now())

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what is due; jumps to the next event, at most `timeout_s` away, if nothing is."""
        now_s = self._clock.now()
        events: list[Event] = []
        with self._clock.excluded():
            if timeout_s > 0 and self._due and self._due[0].time_s > now_s:
                jump_s = min(timeout_s, self._due[0].time_s - now_s)
                self._clock.waited_s += jump_s
                now_s += jump_s
            while self._due and self._due[0].time_s <= now_s:
                events += self._happen(heapq.heappop(self._due))
        return events

    def close(self) -> None:
        """Adds the times of the remaining replicas; call it at the end."""
        for name in list(self._replicas):
            self._stop(name, self._clock.now())

    def _schedule(
        self, time_s: float, transition: Transition, replica: str, batch: int = -1
    ) -> None:
        heapq.heappush(self._due, _Due(time_s, next(self._order), transition, replica, batch))

    def _start(self, time_s: float) -> None:
        name = f"simulated-{next(self._names)}"
        self._starting.add(name)
        self._schedule(time_s, "ready", name)

    def _happen(self, due: _Due) -> Iterator[Event]:
        if due.transition == "ready":
            yield from self._become_ready(due)
        elif due.replica not in self._replicas:
            return  # the replica was lost or retired before
        elif due.transition == "lost":
            self.losses += 1
            self._stop(due.replica, due.time_s)
            self._start(due.time_s + RESPAWN_S)
            yield ReplicaLost(due.replica, "lost in the simulation")
        else:
            yield self._finish_batch(due)

    def _become_ready(self, due: _Due) -> Iterator[Event]:
        if due.replica not in self._starting:
            return  # cancelled
        self._starting.remove(due.replica)
        self._replicas[due.replica] = _SimulatedReplica(due.time_s, up_since_s=due.time_s)
        if self._config.failure_s:
            lost_s = due.time_s + self._random.expovariate(1 / self._config.failure_s)
            self._schedule(lost_s, "lost", due.replica)
        yield ReplicaReady(due.replica)

    def _finish_batch(self, due: _Due) -> Event:
        simulated = self._replicas[due.replica]
        assignment = simulated.assignments.pop(due.batch)
        top_k = self._config.prompt_logprobs
        completions = tuple(_complete(request, top_k) for request in assignment.batch.requests)
        stats = ReplicaStats(busy_s=simulated.busy_s, up_s=due.time_s - simulated.up_since_s)
        return BatchDone(assignment, BatchResult(completions, stats))

    def _stop(self, replica: str, time_s: float) -> None:
        simulated = self._replicas.pop(replica)
        not_done_s = max(0.0, simulated.free_s - time_s)
        self.up_s += time_s - simulated.up_since_s
        self.busy_s += simulated.busy_s - not_done_s


def _complete(request: Request, top_k: int | None) -> Completion:
    """Returns a completion of full length that depends on the request only.

    Args:
        request: to complete, or to score.
        top_k: most likely tokens beside each scored one; None: no values of single tokens.
    """
    sampling = request.sampling
    if sampling is None:
        scores = tuple(_score(ids, top_k) for ids in request.continuations)
        prompt_tokens = len(request.prompt_ids)
        return Completion(request.ref, prompt_tokens=prompt_tokens, cached_tokens=0, scores=scores)
    count = sampling.max_tokens
    ids = [(len(request.prompt_ids) + step) % VOCABULARY for step in range(count)]
    return Completion(
        request.ref,
        token_ids=token_ids(ids),
        finish_reason="length",
        prompt_tokens=len(request.prompt_ids),
        cached_tokens=0,
        token_logprobs=logprobs([-1.0] * count),
        seed=sampling.seed,
    )


def _score(ids: "array[int]", top_k: int | None) -> Score:
    """Returns the score of a text whose log-probs have as many different bits as real ones."""
    count = len(ids)
    score = Score(loglikelihood=-float(count), is_greedy=False, tokens=count)
    if top_k is None:
        return score
    generator = np.random.default_rng(ids[0])
    values = -generator.exponential(2.0, count)
    score = replace(score, token_ids=ids, token_logprobs=logprobs(values.tolist()))
    if not top_k:
        return score
    top_ids = generator.integers(0, VOCABULARY, count * top_k)
    top_values = -np.sort(generator.exponential(2.0, (count, top_k)))
    return replace(
        score,
        top_token_ids=token_ids(top_ids.tolist()),
        top_logprobs=logprobs(top_values.ravel().tolist()),
    )
