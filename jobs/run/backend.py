"""Starts replicas, exports metrics and renders reports: on a Ray cluster, or by fakes in tests."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from actors.pool.config import PoolConfig
from actors.protocol.events import Activity
from actors.replica import ReplicaSpec
from jobs.cluster.connection import ray_cluster
from jobs.run.metrics import RunMetrics
from jobs.run.report import render_report
from pipeline.dispatch.replicas import Replicas
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot

REPLICA_CLASS = "actors.replica:Replica"


class Pool(Replicas, Protocol):
    """Replicas that are being started."""

    def activity(self) -> Activity:
        """Returns what replicas do that load or compile, for the live view."""

    def wait_for_minimum(self, stopped: Callable[[], bool]) -> None:
        """Returns when the minimum of replicas is up, or when `stopped` returns true.

        Raises:
            ModelError: no replica can be started.
        """


class Metrics(Protocol):
    """The exported metrics of a run."""

    def publish(self, snapshot: Snapshot) -> None:
        """Exports the figures of a snapshot."""

    def published_until(self, ended: Callable[[], bool]) -> Callable[[], bool]:
        """Returns `ended`, extended: calls also publish the current figures every few seconds."""


class Backend(Protocol):
    """Starts replicas, exports metrics and renders the report of a run."""

    @property
    def batches_in_flight(self) -> int | None:
        """Batches that one replica holds at most; None: as many as the plan of a run says."""

    def open_pool(
        self, spec: ReplicaSpec, config: PoolConfig, log: RunLog
    ) -> AbstractContextManager[Pool]:
        """Starts replicas; leaving the context stops them.

        Raises:
            ClusterConfigError: the cluster does not answer.
            ClusterLostError: no local cluster came up.
            InterruptedRunError: SIGTERM or Ctrl-C before the cluster was there.
        """

    def open_metrics(
        self, progress: Progress, info: Mapping[str, str], cost_budget: float | None
    ) -> AbstractContextManager[Metrics]:
        """Exports the metrics of a run within the context, and how the run ended."""

    def render_report(self, report: Mapping[str, Any]) -> str:
        """Returns the HTML page of a report."""


@dataclass(frozen=True)
class RayBackend:
    """Replicas as Ray actors, metrics through Ray's agents."""

    replica_class: str = REPLICA_CLASS  # module:class
    batches_in_flight: int | None = None
    cluster: Callable[[int, RunLog], AbstractContextManager[str]] = ray_cluster

    @contextlib.contextmanager
    def open_pool(self, spec: ReplicaSpec, config: PoolConfig, log: RunLog) -> Iterator[Pool]:
        """Connects to a cluster and starts replicas there."""
        with self.cluster(config.maximum, log) as cluster:
            # Imports Ray, which takes a second: dry runs and refused arguments do without. Ray
            # reads its variables then, which `cluster` sets.
            from actors.pool.replica_pool import ReplicaPool

            log.result(
                "cluster",
                f"cluster  {cluster}; waiting for {config.minimum} of {config.maximum} replicas",
                cluster=cluster,
            )
            with ReplicaPool(
                spec, config, replica_class=self.replica_class, notify=log.event
            ) as pool:
                yield pool

    def open_metrics(
        self, progress: Progress, info: Mapping[str, str], cost_budget: float | None
    ) -> RunMetrics:
        """Registers the metrics with Ray."""
        return RunMetrics(progress, info, cost_budget=cost_budget)

    def render_report(self, report: Mapping[str, Any]) -> str:
        """Renders the page with its plots."""
        return render_report(report)


RAY = RayBackend()


@contextlib.contextmanager
def one_cluster(backend: Backend) -> Iterator[Backend]:
    """Yields a backend whose runs within the block share one connection to Ray.

    The first run connects, or starts a local Ray; the block ends it. That saves some seconds in
    each further run. Other backends are yielded unchanged.
    """
    if not isinstance(backend, RayBackend):
        yield backend
        return
    with contextlib.ExitStack() as stack:
        descriptions: list[str] = []

        def connect(replicas: int, log: RunLog) -> AbstractContextManager[str]:
            if not descriptions:
                descriptions.append(stack.enter_context(backend.cluster(replicas, log)))
            return contextlib.nullcontext(descriptions[0])

        yield replace(backend, cluster=connect)
