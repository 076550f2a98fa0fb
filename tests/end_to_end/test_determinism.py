"""With --deterministic a row has the same bits alone, in any order, on any replica, after losses.

Real engines behind the real dispatcher, in this process. Dense weights stand for platforms, as GPUs
are, where the size of a call decides how a row is rounded.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.protocol.events import Assignment, BatchDone, Event, ReplicaLost
from actors.protocol.messages import (
    Batch,
    BatchResult,
    Completion,
    ReplicaStats,
    Request,
    RowRef,
)
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.monitoring.progress import Progress
from tests.actors.engine.engines import generate, make_engine, model_config, run, score
from tests.fakes import FakeReplicas

ROWS = 16
MAX_PROMPT = 40
CONFIG = DispatchConfig(in_flight=3, max_attempts=50, poll_s=0.0, clock=lambda: 0.0)


@dataclass(frozen=True)
class Kind:
    """Layout of weights and type of activations of an engine."""

    dense: bool
    dtype: str

    def engine(self) -> Engine:
        return make_engine(
            "mha",
            dtype=self.dtype,
            dense=self.dense,
            prompt_logprobs=0,
            deterministic=True,
            is_optimized=True,
        )


@dataclass
class EngineReplicas(FakeReplicas):
    """Replicas with engines of their own; a lost one is followed by one with an empty cache."""

    kind: Kind = field(kw_only=True)
    engines: dict[str, Engine] = field(default_factory=dict)
    completed: dict[RowRef, Completion] = field(default_factory=dict)

    def submit(self, assignment: Assignment) -> None:
        super().submit(assignment)
        if assignment.replica not in self.in_flight:
            return
        engine = self.engines.setdefault(assignment.replica, self.kind.engine())
        for request in assignment.batch.requests:
            engine.add(request)

    def events(self, timeout_s: float) -> Sequence[Event]:
        pending = self._pending
        self._pending = []
        busy = [name for name, batches in self.in_flight.items() if batches]
        if pending or not busy or (timeout_s == 0 and self._random.random() < 0.5):
            return pending

        name = self._random.choice(busy)
        for completion in self.engines[name].step():
            self.completed[completion.ref] = completion
        if self._random.random() < self.bad_luck:
            return [self._lose_engine(name)]
        return self._finished(name)

    def _lose_engine(self, name: str) -> ReplicaLost:
        """Loses a replica, and with it what its batches have completed."""
        for assignment in self.in_flight[name].values():
            for request in assignment.batch.requests:
                self.completed.pop(request.ref, None)
        del self.engines[name]
        return self._lose(name)

    def _finished(self, name: str) -> list[Event]:
        events: list[Event] = []
        for number, assignment in list(self.in_flight[name].items()):
            refs = [request.ref for request in assignment.batch.requests]
            if all(ref in self.completed for ref in refs):
                del self.in_flight[name][number]
                completions = tuple(self.completed[ref] for ref in refs)
                events.append(BatchDone(assignment, BatchResult(completions, ReplicaStats())))
        return events


def requests() -> list[Request]:
    """Returns greedy, sampled and score requests; prompts of many lengths, some with a prefix."""
    rng = np.random.default_rng(3)
    prefix = rng.integers(3, model_config("mha").vocab_size, 16).tolist()
    result: list[Request] = []
    for row in range(ROWS):
        length = int(rng.integers(2, MAX_PROMPT))
        prompt = rng.integers(3, model_config("mha").vocab_size, length).tolist()
        if row % 3 == 0:
            prompt = [*prefix, *prompt[:8]]
        if row % 4 == 3:
            result.append(score(row, prompt, prompt[:5], [7, 8]))
        else:
            new_tokens = 3 + row % 5
            result.append(generate(row, prompt, new_tokens, temperature=float(row % 2), seed=row))
    return result


def bits(completion: Completion) -> tuple[bytes, ...]:
    """Returns all numbers of a completion that do not depend on the cache."""
    assert completion.error_code is None
    arrays = (completion.token_logprobs, completion.prompt_logprobs)
    logprobs = [np.asarray(array or (), np.float32).tobytes() for array in arrays]
    scores = np.array([part.loglikelihood for part in completion.scores])
    return np.asarray(completion.token_ids).tobytes(), *logprobs, scores.tobytes()


def run_on_replicas(
    kind: Kind, rows: Sequence[Request], count: int, bad_luck: float, seed: int
) -> dict[RowRef, tuple[bytes, ...]]:
    replicas = EngineReplicas(count, seed=seed, bad_luck=bad_luck, kind=kind)
    size = random.Random(seed).choice([1, 3, 5])
    batches = [Batch(tuple(rows[start : start + size])) for start in range(0, len(rows), size)]
    completions = run_batches(batches, replicas, CONFIG, Progress(len(rows)))
    result = {completion.ref: bits(completion) for completion in completions}
    assert (replicas.losses > 0) == (bad_luck > 0)
    return result


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    "kind", [Kind(dense=False, dtype="float32"), Kind(dense=True, dtype="bfloat16")]
)
def test_rows_have_equal_bits_whatever_runs_beside_or_before_them(kind: Kind) -> None:
    rows = requests()
    engine = kind.engine()
    together = {row.ref: bits(done) for row, done in zip(rows, run(engine, rows), strict=True)}

    engine = kind.engine()
    for row in rows[::4]:
        (alone,) = run(engine, [row])
        assert bits(alone) == together[row.ref], f"{row.ref} alone"
    assert run_on_replicas(kind, rows[::-1], count=1, bad_luck=0.0, seed=1) == together
    assert run_on_replicas(kind, rows, count=2, bad_luck=0.0, seed=2) == together
    assert run_on_replicas(kind, rows, count=2, bad_luck=0.25, seed=3) == together
