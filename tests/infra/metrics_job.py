"""The main job on a real Ray, with replicas that compute by arithmetic: a run of some 15 seconds.

    python tests/infra/metrics_job.py FLAGS

Some replicas are lost on the way, and one row of each shard kills every replica it meets.
"""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from actors.pool.config import PoolConfig
from actors.protocol.events import BatchDone, Event
from actors.protocol.messages import ReplicaStats, Request
from actors.replica import ReplicaSpec
from jobs import score_dataset
from jobs.cluster.connection import ray_cluster
from jobs.run.backend import Pool, RayBackend
from pipeline.monitoring.run_log import RunLog
from tests.end_to_end.fake_run import FakePool

ANSWER_S = 0.15  # until the next answer of any replica


def deadly(request: Request) -> bool:
    return request.ref.row == 7


class SlowPool(FakePool):
    """Takes its time, and counts what a replica would count."""

    def __init__(self) -> None:
        super().__init__(count=2, seed=7, poison=deadly, bad_luck=0.05)
        self._answered: Counter[str] = Counter()

    def events(self, timeout_s: float) -> Sequence[Event]:
        time.sleep(ANSWER_S)
        return [self._counted(event) for event in super().events(timeout_s)]

    def _counted(self, event: Event) -> Event:
        if not isinstance(event, BatchDone):
            return event
        self._answered[event.assignment.replica] += 1
        stats = ReplicaStats(
            **{
                field.name: 3 * self._answered[event.assignment.replica]
                for field in fields(ReplicaStats)
            }
        )
        completions = tuple(replace(each, cached_tokens=2) for each in event.result.completions)
        return replace(event, result=replace(event.result, stats=stats, completions=completions))


class SlowBackend(RayBackend):
    """Slow fake replicas beside a real cluster, which exports the metrics."""

    @contextlib.contextmanager
    def open_pool(self, spec: ReplicaSpec, config: PoolConfig, log: RunLog) -> Iterator[Pool]:
        with ray_cluster(config.maximum) as cluster:
            log.result("cluster", f"cluster  {cluster}", cluster=cluster)
            yield SlowPool()


if __name__ == "__main__":
    sys.exit(score_dataset.main(sys.argv[1:], SlowBackend()))
