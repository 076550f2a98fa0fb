"""A backend for jobs in this process: one real replica of the model, without Ray."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.protocol.events import Assignment
from actors.protocol.messages import Completion, RowRef
from actors.replica import Replica, ReplicaSpec
from jobs.run.backend import Pool
from pipeline.monitoring.run_log import RunLog
from tests.end_to_end.fake_run import FakeBackend, FakePool


@dataclass
class EnginePool(FakePool):
    """One replica, which answers a batch when it is submitted."""

    completions: dict[RowRef, Completion] = field(default_factory=dict)
    replica: Replica | None = None

    def submit(self, assignment: Assignment) -> None:
        assert self.replica is not None
        for completion in self.replica.run(assignment.batch).completions:
            self.completions[completion.ref] = completion
        super().submit(assignment)


@dataclass(frozen=True)
class EngineBackend(FakeBackend):
    """Pass it to the `main` of a command."""

    @contextlib.contextmanager
    def open_pool(self, spec: ReplicaSpec, config: object, log: RunLog) -> Iterator[Pool]:
        replica = Replica(spec)
        pool = EnginePool(count=1, info=replica.info(), replica=replica)
        pool.answer = lambda request: pool.completions.pop(request.ref)
        try:
            yield pool
        finally:
            replica.close()
