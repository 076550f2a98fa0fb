"""Measures the driver without replicas, and the utilization of many simulated replicas.

Reader, buckets, dispatch, progress and writer run as in a job, from Parquet to committed Parquet.
Replicas are simulated. Ray is left out: it moves each batch and its answer between processes.
"""

import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.protocol.sampling import SamplingParams
from actors.protocol.size_buckets import prompt_size_buckets
from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from jobs.benchmarks.simulated_replicas import VOCABULARY, SimulatedClock, SimulatedReplicas
from pipeline.dispatch.buckets import BucketConfig
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import finish, read_state, remaining
from pipeline.output.schema import output_schema
from pipeline.output.writer import Writer
from pipeline.requests.rules import RequestRules
from pipeline.run import Pipeline, run
from pipeline.tasks import TASKS

FILE_ROWS = 500_000
ROW_GROUP_ROWS = 20_000
LENGTH_SIGMA = 0.5  # of the log-normal distribution of prompt lengths
FINGERPRINT = "benchmark"
SCHEMA = pa.schema([("id", pa.int64()), ("prompt_token_ids", pa.list_(pa.int32()))])


def write_input(folder: Path, rows: int, prompt_tokens: int, seed: int) -> int:
    """Writes Parquet files of prompts in token ids, of log-normal lengths; returns their tokens."""
    folder.mkdir(parents=True)
    tokens = 0
    generator = np.random.default_rng(seed)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        end = min(rows, start + FILE_ROWS)
        path = folder / f"{number:04d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for first in range(start, end, ROW_GROUP_ROWS):
                count = min(ROW_GROUP_ROWS, end - first)
                prompts = _prompts(generator, first, count, prompt_tokens)
                tokens += pc.sum(pc.list_value_length(prompts["prompt_token_ids"])).as_py()
                writer.write_table(prompts)
    return tokens


def _prompts(generator: np.random.Generator, first: int, count: int, median: int) -> pa.Table:
    lengths = generator.lognormal(math.log(median), LENGTH_SIGMA, count)
    lengths = np.clip(lengths, 1, 8 * median).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = pa.array(generator.integers(0, VOCABULARY, int(offsets[-1]), dtype=np.int32))

    build_lists: Any = pa.ListArray.from_arrays  # its stubs do not accept NumPy arrays
    prompts = build_lists(pa.array(offsets), tokens)
    ids = pa.array(np.arange(first, first + count))
    return pa.table([ids, prompts], schema=SCHEMA)


def resident_mib() -> float:
    """Returns the memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(config: DriverBenchmarkConfig) -> Iterator[str]:
    """Runs the benchmark in --folder and yields its lines."""
    root = Path(str(config.folder))
    input_tokens = write_input(root / "input", config.rows, config.prompt_tokens, config.seed)
    base_mib = resident_mib()
    started_s = time.perf_counter()
    files = list_input(str(root / "input"))
    schema = inspect_columns(files, InputColumns(TASKS[config.task]))
    check_unique_ids(files, schema.id_column)
    shards = plan_shards(files, config.shard_rows)
    plan_s = time.perf_counter() - started_s
    yield (
        f"plan: {plan_s:.1f} s for {config.rows:,} rows in {len(shards):,} shards (listing, ids, "
        "shards)"
    )

    folder = RunFolder(str(root / "run"))
    clock = SimulatedClock()
    replicas = SimulatedReplicas(config, clock)
    pipeline = _pipeline(config, schema, folder, replicas, clock)
    yield (
        f"memory before the first row: {resident_mib():,.0f} MiB (of it {base_mib:,.0f} libraries "
        "and input generator)"
    )

    done_rows = 0
    next_quarter = 1
    unfinished = remaining(shards, read_state(folder, shards, FINGERPRINT))
    for committed in run(unfinished, pipeline):
        done_rows += committed.rows
        if done_rows >= next_quarter * config.rows / 4:
            rate = done_rows / clock.driver_s
            yield f"memory at {done_rows:>12,} rows: {resident_mib():,.0f} MiB, {rate:,.0f} rows/s"
            next_quarter = int(4 * done_rows / config.rows) + 1

    times = DriverTimes(clock.driver_s, clock.driver_cpu_s, clock.now())
    finish(folder, shards, folder.committed())
    replicas.close()
    yield from _summary(config, replicas, times)
    part_bytes = sum(path.stat().st_size for path in (root / "run" / "data").iterdir())
    yield (
        f"output: {part_bytes / 1e6:,.1f} MB, {part_bytes / config.rows:,.0f} bytes per row, "
        f"{part_bytes / input_tokens:,.2f} MB per million tokens of the input"
    )


@dataclass(frozen=True)
class DriverTimes:
    """Times of a run of the driver."""

    driver_s: float  # by the clock
    cpu_s: float  # of all threads
    simulated_s: float  # of the run


def _pipeline(
    config: DriverBenchmarkConfig,
    schema: InputSchema,
    folder: RunFolder,
    replicas: SimulatedReplicas,
    clock: SimulatedClock,
) -> Pipeline:
    task = TASKS[config.task]
    columns = output_schema(
        schema,
        task=task,
        logprobs=0,
        prompt_logprobs=config.prompt_logprobs,
        choices=False,
        windows=config.window_len is not None,
    )
    rules = RequestRules(
        VOCABULARY, config.max_len, defaults=SamplingParams(max_tokens=config.max_tokens)
    )
    if config.window_len is not None:
        stride = max(config.window_len // 2, 1)
        rules = replace(rules, overflow="window", window_stride=stride)
    return Pipeline(
        task=task,
        schema=schema,
        tokenizer=None,
        rules=rules,
        buckets=BucketConfig(prompt_size_buckets(config.max_len), config.batch_tokens),
        dispatch=DispatchConfig(config.in_flight, max_attempts=10, clock=clock.now),
        replicas=replicas,
        writer=Writer(folder, columns, FINGERPRINT),
        progress=Progress(config.rows, clock=clock.now),
    )


def _summary(
    config: DriverBenchmarkConfig, replicas: SimulatedReplicas, times: DriverTimes
) -> Iterator[str]:
    clock_rate = config.rows / times.driver_s
    cpu_rate = config.rows / times.cpu_s
    yield (
        f"rows/s of the driver alone: {clock_rate:,.0f} by the clock, {cpu_rate:,.0f} by processor "
        f"time ({1e6 / cpu_rate:,.0f} µs per row)"
    )

    clock_ms = 1e3 * times.driver_s / replicas.batches
    cpu_ms = 1e3 * times.cpu_s / replicas.batches
    batch_rows = config.rows / replicas.batches
    yield (
        f"driver time per batch: {clock_ms:.3f} ms by the clock, {cpu_ms:.3f} ms of processor time "
        f"({replicas.batches:,} batches of {batch_rows:.1f} rows)"
    )

    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield f"peak memory: {peak_mib:,.0f} MiB"

    driver_share = times.driver_s / times.simulated_s
    idle_share = 1 - replicas.busy_s / replicas.up_s
    tail_share = (times.simulated_s - replicas.last_submit_s) / times.simulated_s
    yield (
        f"simulated: {times.simulated_s:,.0f} s, the driver worked {driver_share:.1%} of it; "
        f"replicas idle {idle_share:.1%}; tail after the last batch was handed out "
        f"{tail_share:.1%}; {replicas.losses:,} replicas lost"
    )
