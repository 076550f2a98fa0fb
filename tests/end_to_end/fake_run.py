"""A backend for jobs in this process, without Ray and JAX: replicas answer by arithmetic."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from actors.protocol.events import Activity
from actors.protocol.messages import Completion, ReplicaInfo, Request
from actors.replica import ReplicaSpec
from jobs.run.backend import Metrics, Pool
from jobs.run.report import render_report
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot
from tests import fakes
from tests.fakes import FakeReplicas


class FakePool(FakeReplicas):
    """Fake replicas that are up at once."""

    def activity(self) -> Activity:
        return Activity()

    def wait_for_minimum(self, stopped: Callable[[], bool]) -> None:
        """They are up."""


class NoMetrics:
    """Exports nothing."""

    def publish(self, snapshot: Snapshot) -> None:
        """Drops the figures."""

    def published_until(self, ended: Callable[[], bool]) -> Callable[[], bool]:
        return ended


def no_poison(request: Request) -> bool:
    """No request kills its replica."""
    return False


@dataclass(frozen=True)
class FakeBackend:
    """Pass it to `run_job` or to the `main` of a command."""

    answer: Callable[[Request], Completion] = fakes.answer
    poison: Callable[[Request], bool] = no_poison  # requests that kill their replica
    seed: int = 7  # of the order in which replicas answer
    batches_in_flight: int = 16
    info: ReplicaInfo | None = None  # that replicas give of themselves
    before_run: Callable[[], object] = bool  # called once the job is planned
    draws_plots: bool = True  # False: an empty report, because plots take longer than a run

    @contextlib.contextmanager
    def open_pool(self, spec: ReplicaSpec, config: object, log: RunLog) -> Iterator[Pool]:
        self.before_run()
        yield FakePool(
            count=2, seed=self.seed, poison=self.poison, answer=self.answer, info=self.info
        )

    def open_metrics(
        self, progress: Progress, info: Mapping[str, str], cost_budget: float | None
    ) -> contextlib.AbstractContextManager[Metrics]:
        return contextlib.nullcontext(NoMetrics())

    def render_report(self, report: Mapping[str, Any]) -> str:
        return render_report(report) if self.draws_plots else ""
