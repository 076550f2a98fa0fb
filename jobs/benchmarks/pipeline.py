"""Measures the gain of prefix reuse, and the speed of the pipeline relative to the engine.

One replica on a local Ray runs each pass through the pipeline, Parquet to Parquet, and as one batch
that is submitted directly: the engine alone. The first pass of either kind compiles and is not
counted. Prompts are token ids, and completions are not decoded to text.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.pool.config import PoolConfig
from actors.protocol.events import Assignment, BatchDone, Event, ReplicaReady
from actors.protocol.messages import Batch, ReplicaInfo, ReplicaStats, Request
from actors.weights import checkpoint
from jobs.benchmarks.measurement import increase
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_figures import Pass, figures
from jobs.benchmarks.pipeline_prompts import input_requests, plan_pass, plan_requests
from jobs.run.plan import Plan
from pipeline.dispatch.buckets import fill_batches
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.errors import ConfigError
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.output.schema import output_schema
from pipeline.output.writer import Writer
from pipeline.run import Pipeline, run


@dataclass
class SingleReplica:
    """Implements dispatch's `Replicas` with one replica that is up and outlives each run."""

    pool: Any
    name: str
    info: ReplicaInfo | None
    up: int = 1
    wanted: int = 1
    _announced: bool = field(default=False, init=False)

    def submit(self, assignment: Assignment) -> None:
        """Submits a batch."""
        self.pool.submit(assignment)

    def want(self, count: int) -> None:
        """Keeps the replica."""

    def retire(self, replica: str) -> None:
        """Keeps the replica."""

    def abandon(self, replica: str) -> None:
        """Keeps the replica."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns first that the replica is ready, then the events of the pool."""
        if not self._announced:
            self._announced = True
            return [ReplicaReady(self.name, self.info)]
        events: Sequence[Event] = self.pool.events(timeout_s)
        return events


def measure(config: PipelineBenchmarkConfig) -> dict[str, Any]:
    """Runs all passes in --folder, deletes it, and returns the figures.

    Raises:
        ConfigError: a row of the input cannot run or is too long for the model.
    """
    config.root.mkdir(parents=True)
    try:
        weights = checkpoint.random_parameters(config.model_config, 0)
        checkpoint.write(weights, config.root / "ckpt-0")
        requests = input_requests(config)
        passes = 2 * (config.rounds + 1)
        plans = [plan_pass(config, requests, number) for number in range(passes)]
        pipeline_passes, engine_passes = _run_passes(config, plans)
        # The first pass of each kind compiles.
        return figures(config, plans[-1], pipeline_passes[1:], engine_passes[1:])
    finally:
        shutil.rmtree(config.root)


def _run_passes(
    config: PipelineBenchmarkConfig, plans: Sequence[Plan]
) -> tuple[list[Pass], list[Pass]]:
    """Runs the plans alternately through the pipeline and as one batch."""
    pipeline_passes: list[Pass] = []
    engine_passes: list[Pass] = []
    with _started_replica(plans[0]) as (pool, ready):
        for number, plan in enumerate(plans):
            replica = SingleReplica(pool, ready.replica, ready.info)
            if number % 2 == 0:
                folder = config.root / f"run-{number}"
                pipeline_passes.append(_run_pipeline(plan, folder, replica))
            else:
                engine_passes.append(_run_engine(plan, replica))
    return pipeline_passes, engine_passes


@contextmanager
def _started_replica(plan: Plan) -> Iterator[tuple[Any, ReplicaReady]]:
    """Starts one replica on a Ray of its own; yields the pool and the event of the replica."""
    os.environ["RAY_ADDRESS"] = "local"
    from actors.pool.replica_pool import ReplicaPool
    from jobs.cluster.connection import ray_cluster

    data, model = plan.config.mesh_shape()
    pool_config = PoolConfig(1, 1, data * model, plan.sizes.batches_in_flight, "cpu")
    with ray_cluster(1), ReplicaPool(plan.replica_spec(), pool_config) as pool:
        pool.wait_for_minimum()
        events = pool.events(1.0)
        yield pool, next(event for event in events if isinstance(event, ReplicaReady))


def _run_pipeline(plan: Plan, folder: Path, replica: SingleReplica) -> Pass:
    """Runs a pass from Parquet to Parquet, as the main job does."""
    before = _stats(replica)
    progress = Progress(plan.own_row_count, replicas=lambda: (1, 1))
    schema = output_schema(
        plan.schema,
        task=plan.task,
        logprobs=plan.config.logprobs,
        prompt_logprobs=None,
        choices=plan.schema.has_choices,
    )
    pipeline = Pipeline(
        task=plan.task,
        schema=plan.schema,
        tokenizer=None,
        rules=plan.rules,
        buckets=plan.bucket_config(),
        dispatch=DispatchConfig(plan.sizes.batches_in_flight),
        replicas=replica,
        writer=Writer(RunFolder(str(folder)), schema, "benchmark"),
        progress=progress,
    )

    started_s = time.perf_counter()
    progress.begin()
    for _ in run(plan.shards, pipeline):
        continue
    seconds = time.perf_counter() - started_s

    if progress.error_rows:
        raise ConfigError(f"{progress.error_rows} rows failed")
    return _pass(seconds, before, _stats(replica))


def _run_engine(plan: Plan, replica: SingleReplica) -> Pass:
    """Runs a pass as one batch: the engine never waits for requests."""
    requests: list[Request] = []
    for batch in fill_batches(plan_requests(plan), plan.bucket_config()):
        requests += batch.requests

    before = _stats(replica)
    started_s = time.perf_counter()
    after = _run_batch(replica, Batch(tuple(requests)))
    return _pass(time.perf_counter() - started_s, before, after)


def _stats(replica: SingleReplica) -> ReplicaStats:
    """Returns the counters of the replica, by an empty batch."""
    return _run_batch(replica, Batch(()))


def _run_batch(replica: SingleReplica, batch: Batch) -> ReplicaStats:
    replica.pool.submit(Assignment(0, batch, replica.name))
    while True:
        for event in replica.pool.events(1.0):
            if not isinstance(event, BatchDone):
                raise ConfigError(f"the replica was lost: {event}")
            return event.result.stats


def _pass(seconds: float, before: ReplicaStats, after: ReplicaStats) -> Pass:
    stats = increase(before, after)
    return Pass(seconds - stats.compile_s, stats)
