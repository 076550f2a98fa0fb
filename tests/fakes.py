"""Replicas without Ray, for tests of the driver.

They compute results by arithmetic, in any order, and die on request.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from actors.protocol.errors import ModelError
from actors.protocol.events import (
    Assignment,
    BatchDone,
    Event,
    Heartbeat,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import (
    Batch,
    BatchResult,
    Boundary,
    Completion,
    ReplicaInfo,
    ReplicaStats,
    Request,
    Score,
    logprobs,
    token_ids,
)


def _score(ids: "Sequence[int]", boundary: Boundary) -> Score:
    return Score(
        -float(sum(ids)) / 7,
        sum(ids) % 2 == 0,
        len(ids),
        boundary.context_chars,
        token_ids=token_ids(list(ids)),
        token_logprobs=logprobs([-token / 7 for token in ids]),
    )


def answer(request: Request) -> Completion:
    """The completion of a request: a function of the request alone, as a real engine's is."""
    ids = request.prompt_ids
    if request.sampling is None:
        scores = tuple(
            _score(part[request.boundary(number).context_tokens :], request.boundary(number))
            for number, part in enumerate(request.continuations)
        )
        return Completion(request.ref, prompt_tokens=len(ids), cached_tokens=0, scores=scores)
    drawn = [
        (sum(ids) + request.sampling.seed + step) % 50
        for step in range(request.sampling.max_tokens)
    ]
    return Completion(
        request.ref,
        token_ids=token_ids(drawn),
        finish_reason="length",
        prompt_tokens=len(ids),
        cached_tokens=0,
        token_logprobs=logprobs([-1.0] * len(drawn)),
        seed=request.sampling.seed,
    )


# What replicas give of themselves: parts describe what computed them, and have digests of rows.
DESCRIBED = ReplicaInfo(
    "fake", "node", ("cpu",), "1x1", 0, 0, 0, 1, 0.0, "float32", (("grok-batch", "test"),)
)


def ended_text(request: Request, ids: Sequence[int], logprob: float) -> Completion:
    """The completion of a request by these tokens, which the model ends; each has the log-prob."""
    assert request.sampling is not None
    return Completion(
        request.ref,
        token_ids=token_ids(list(ids)),
        finish_reason="stop",
        stop_reason="eos",
        prompt_tokens=len(request.prompt_ids),
        cached_tokens=0,
        token_logprobs=logprobs([logprob] * len(ids)),
        seed=request.sampling.seed,
    )


@dataclass
class FakeReplicas:
    """Fulfils dispatch's `Replicas`.

    A batch that holds a poisonous request takes its replica down; so does bad luck.
    """

    count: int = 2
    seed: int = 0  # of the order of answers and of bad luck
    bad_luck: float = 0.0  # share of answers that are a loss of the replica instead
    poison: Callable[[Request], bool] = lambda request: False
    answer: Callable[[Request], Completion] = answer
    most_losses: int = 10_000
    info: ReplicaInfo | None = None  # that each of them gives of itself
    in_flight: dict[str, dict[int, Assignment]] = field(default_factory=dict)
    submitted: list[Assignment] = field(default_factory=list)
    losses: int = 0
    retired: list[str] = field(default_factory=list)
    most_in_flight: int = 0  # on one replica at one moment

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._names = 0
        self._pending: list[Event] = []
        for _ in range(self.count):
            self._start()

    @property
    def up(self) -> int:
        return len(self.in_flight)

    @property
    def wanted(self) -> int:
        return self.count

    def want(self, count: int) -> None:
        self.count = min(self.count, count)

    def retire(self, replica: str) -> None:
        assert not self.in_flight[replica], "a replica that holds a batch was let go"
        del self.in_flight[replica]
        self.retired.append(replica)

    def abandon(self, replica: str) -> None:
        del self.in_flight[replica]

    def submit(self, assignment: Assignment) -> None:
        held = self.in_flight.get(assignment.replica)
        if held is not None:  # else its loss is under way, as in the pool
            held[assignment.number] = assignment
            self.most_in_flight = max(self.most_in_flight, len(held))
        self.submitted.append(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        pending, self._pending = self._pending, []
        busy = [name for name, batches in self.in_flight.items() if batches]
        if pending or not busy or (timeout_s == 0 and self._random.random() < 0.5):
            return pending
        name = self._random.choice(busy)
        assignment = self._random.choice(list(self.in_flight[name].values()))
        requests = assignment.batch.requests
        if any(map(self.poison, requests)) or self._random.random() < self.bad_luck:
            return [self._lose(name)]
        del self.in_flight[name][assignment.number]
        completions = tuple(map(self.answer, requests))
        return [BatchDone(assignment, BatchResult(completions, ReplicaStats(up_s=1.0)))]

    def _lose(self, name: str) -> ReplicaLost:
        self.losses += 1
        if self.losses > self.most_losses:
            raise ModelError(f"{self.losses} replicas were lost")
        del self.in_flight[name]
        self._start()
        return ReplicaLost(name, "killed by the test")

    def _start(self) -> None:
        name = f"fake-{self._names}"
        self._names += 1
        self.in_flight[name] = {}
        self._pending.append(ReplicaReady(name, self.info))


class StubReplica:
    """What the pool's tests start in a real Ray actor in place of `actors.replica.Replica`.

    `spec` says how it behaves.
    """

    def __init__(self, spec: dict[str, object], name: str, _start: object = None) -> None:
        if spec.get("refuse"):
            raise ModelError(
                "checkpoint /nowhere: no files there; give the folder that holds the weights"
            )
        if spec.get("die_loading"):
            import os

            os._exit(7)
        self._spec, self._name = spec, name

    def info(self) -> ReplicaInfo:
        import os

        flags = os.environ.get("XLA_FLAGS", "")
        return ReplicaInfo(
            self._name,
            str(os.getpid()),
            (flags, os.environ.get("JAX_PLATFORMS", "")),
            "1x1",
            0,
            0,
            0,
            1,
            0.0,
        )

    def stats(self) -> ReplicaStats:
        return ReplicaStats(up_s=1.0)

    def heartbeat(self) -> Heartbeat:
        return Heartbeat("idle")

    def run(self, batch: Batch) -> BatchResult:
        import os

        deadly = self._spec.get("deadly_row")
        if any(request.ref.row == deadly for request in batch.requests):
            os._exit(9)
        return BatchResult(tuple(map(answer, batch.requests)), self.stats())
