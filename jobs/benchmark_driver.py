"""How fast the driver is by itself, and how well it keeps many replicas busy → a table.

Replicas are simulated, all else is real.

    python jobs/benchmark_driver.py --folder FOLDER [--rows 1000000] [--replicas 1000] [--service-s
    30] [--failure-s 3600] …

Reader, buckets, dispatch, progress and writer run as in a job, from Parquet to committed Parquet in
FOLDER. A simulated replica works on its batches one after the other, each for a random time; it may
be a straggler, and it may be lost and replaced. Nobody waits for it: the clock of the simulation
runs while the driver works and jumps when the driver would wait. What the simulation itself takes
is left out of every figure. Left out too is Ray: it moves each batch and its answer between
processes.
"""

import heapq
import itertools
import math
import random
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.events import Assignment, BatchDone, Event, ReplicaLost, ReplicaReady
from actors.protocol.messages import (
    BatchResult,
    Completion,
    ReplicaStats,
    Request,
    logprobs,
    token_ids,
)
from actors.protocol.sampling import SamplingParams
from actors.protocol.size_buckets import prompt_size_buckets
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse
from pipeline.dispatch.buckets import BucketConfig
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.errors import ConfigError
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.input.shards import list_input, plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import finish, read_state, remaining
from pipeline.output.schema import output_schema
from pipeline.output.writer import Writer
from pipeline.requests.tokenizer import RequestRules
from pipeline.run import Pipeline, run

VOCABULARY = 1000
FILE_ROWS = 500_000
RESPAWN_S = 60.0  # until a lost replica has a successor that is loaded


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of jobs/benchmark_driver.py.

    Raises:
        ConfigError: flags are missing or out of range.
    """

    folder: str | None = flag(None, "local folder for input and output, made and deleted; required")
    rows: int = flag(1_000_000, "rows of the input")
    replicas: int = flag(1000, "simulated replicas")
    prompt_tokens: int = flag(400, "median length of a prompt, tokens; lengths are log-normal")
    max_tokens: int = flag(64, "length of every completion, tokens")
    batch_tokens: int = flag(8192, "token budget of one batch")
    shard_rows: int = flag(1000, "rows per commit")
    in_flight: int = flag(8, "batches on each replica")
    service_s: float = flag(30.0, "mean time of a replica for a batch, simulated seconds")
    slow_share: float = flag(0.01, "share of batches that take slow_factor times as long")
    slow_factor: float = flag(10.0, "how much longer these take")
    failure_s: float | None = flag(
        None, "mean time until a replica is lost, simulated seconds; none by default"
    )
    seed: int = flag(0, "of lengths, times and losses")

    def __post_init__(self) -> None:
        if not self.folder:
            raise ConfigError("--folder is missing; see --help")
        if Path(self.folder).exists():
            raise ConfigError(
                f"--folder: {self.folder} exists; it would be deleted at the end, name a new one"
            )
        if (
            min(self.rows, self.replicas, self.prompt_tokens, self.max_tokens, self.in_flight) < 1
            or self.service_s <= 0
        ):
            raise ConfigError(
                "--rows, --replicas, --prompt-tokens, --max-tokens, --in-flight: expected at least "
                "1"
            )


@dataclass(slots=True)
class SimulatedClock:
    """Seconds in which the driver worked, and those in which it would have waited."""

    simulation_s: float = 0.0  # real time that the simulation took for itself
    simulation_cpu_s: float = 0.0
    waited_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)
    began_cpu_s: float = field(default_factory=time.process_time)

    @property
    def driver_s(self) -> float:
        """Real time of the driver so far."""
        return time.perf_counter() - self.began_s - self.simulation_s

    @property
    def driver_cpu_s(self) -> float:
        """Processor time of all threads of the driver so far: what a machine with nothing else to do would need."""
        return time.process_time() - self.began_cpu_s - self.simulation_cpu_s

    def now(self) -> float:
        """Returns the simulated time."""
        return self.driver_s + self.waited_s

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leaves what happens in the block out of the driver's time."""
        began_s, began_cpu_s = time.perf_counter(), time.thread_time()
        yield
        self.simulation_s += time.perf_counter() - began_s
        self.simulation_cpu_s += time.thread_time() - began_cpu_s


@dataclass(slots=True)
class _Machine:
    """One simulated replica."""

    free_s: float  # when it is through with what it holds
    assignments: dict[int, Assignment] = field(default_factory=dict)
    busy_s: float = 0.0
    up_since_s: float = 0.0


class SimulatedReplicas:
    """Fulfils dispatch's `Replicas` on simulated time."""

    def __init__(self, config: BenchmarkConfig, clock: SimulatedClock) -> None:
        self._config, self._clock, self._random = config, clock, random.Random(config.seed)
        self._machines: dict[str, _Machine] = {}
        # heap: (when, tick, replica, batch; -1 loss, None ready)
        self._due: list[tuple[float, int, str, int | None]] = []
        self._ticks, self._names = itertools.count(), itertools.count()
        self._coming: set[str] = set()
        self.batches = self.losses = 0
        self.busy_s = self.up_s = self.last_submit_s = 0.0
        for _ in range(config.replicas):
            self._start(0.0)

    @property
    def up(self) -> int:
        """Replicas that can take batches now."""
        return len(self._machines)

    @property
    def wanted(self) -> int:
        """Replicas asked for."""
        return self._config.replicas

    def submit(self, assignment: Assignment) -> None:
        """Takes a batch; its answer is due when the replica is through with all before it."""
        now = self._clock.now()
        self.batches, self.last_submit_s = self.batches + 1, now
        machine = self._machines.get(assignment.replica)
        if machine is None:
            return  # its loss is under way
        with self._clock.left_out():
            service_s = self._random.gammavariate(4.0, self._config.service_s / 4.0)
            if self._random.random() < self._config.slow_share:
                service_s *= self._config.slow_factor
            machine.free_s = max(now, machine.free_s) + service_s
            machine.busy_s += service_s
            machine.assignments[assignment.number] = assignment
            due = (machine.free_s, next(self._ticks), assignment.replica, assignment.number)
            heapq.heappush(self._due, due)

    def want(self, count: int) -> None:
        """Calls off successors that are still to come up beyond `count`."""
        while self._coming and len(self._machines) + len(self._coming) > count:
            self._coming.pop()

    def retire(self, replica: str) -> None:
        """Ends an idle replica."""
        self._end(replica, self._clock.now())

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what is due.

        Jumps to the next event, `timeout_s` away at most, when nothing is.
        """
        now = self._clock.now()
        found: list[Event] = []
        with self._clock.left_out():
            if timeout_s > 0 and self._due and self._due[0][0] > now:
                jump_s = min(timeout_s, self._due[0][0] - now)
                self._clock.waited_s += jump_s
                now += jump_s
            while self._due and self._due[0][0] <= now:
                when_s, _, replica, batch = heapq.heappop(self._due)
                found += self._happen(when_s, replica, batch)
        return found

    def close(self) -> None:
        """Adds up what the replicas did; to be called at the end."""
        for name in list(self._machines):
            self._end(name, self._clock.now())

    def _start(self, at_s: float) -> None:
        name = f"simulated-{next(self._names)}"
        self._coming.add(name)
        heapq.heappush(self._due, (at_s, next(self._ticks), name, None))

    def _happen(self, when_s: float, replica: str, batch: int | None) -> Iterator[Event]:
        machine = self._machines.get(replica)
        if batch is None:
            if replica not in self._coming:
                return  # called off
            self._coming.remove(replica)
            self._machines[replica] = _Machine(when_s, up_since_s=when_s)
            if self._config.failure_s:
                end_s = when_s + self._random.expovariate(1 / self._config.failure_s)
                heapq.heappush(self._due, (end_s, next(self._ticks), replica, -1))
            yield ReplicaReady(replica)
        elif machine is None:
            return  # the answer of a replica that was lost
        elif batch == -1:
            self.losses += 1
            self._end(replica, when_s)
            self._start(when_s + RESPAWN_S)
            yield ReplicaLost(replica, "lost in the simulation")
        else:
            assignment = machine.assignments.pop(batch)
            completions = tuple(map(_answer, assignment.batch.requests))
            stats = ReplicaStats(busy_s=machine.busy_s, up_s=when_s - machine.up_since_s)
            yield BatchDone(assignment, BatchResult(completions, stats))

    def _end(self, replica: str, when_s: float) -> None:
        machine = self._machines.pop(replica)
        self.up_s += when_s - machine.up_since_s
        self.busy_s += machine.busy_s - max(0.0, machine.free_s - when_s)


def _answer(request: Request) -> Completion:
    count = request.sampling.max_tokens if request.sampling else 0
    drawn = [(len(request.prompt_ids) + step) % VOCABULARY for step in range(count)]
    return Completion(
        request.ref,
        token_ids=token_ids(drawn),
        finish_reason="length",
        prompt_tokens=len(request.prompt_ids),
        cached_tokens=0,
        token_logprobs=logprobs([-1.0] * count),
        seed=request.sampling.seed if request.sampling else None,
    )


def write_input(folder: Path, rows: int, prompt_tokens: int, seed: int) -> None:
    """Writes Parquet files of `rows` prompts in token ids, of log-normal lengths around `prompt_tokens`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        end = min(rows, start + FILE_ROWS)
        path = folder / f"{number:04d}.parquet"
        schema = pa.schema([("id", pa.int64()), ("prompt_token_ids", pa.list_(pa.int32()))])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for first in range(start, end, 20_000):
                count = min(20_000, end - first)
                lengths = np.clip(
                    rng.lognormal(math.log(prompt_tokens), 0.5, count), 1, 8 * prompt_tokens
                ).astype(np.int32)
                offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
                ids = pa.array(rng.integers(0, VOCABULARY, int(offsets[-1]), dtype=np.int32))
                build: Any = pa.ListArray.from_arrays  # its stubs know no NumPy arrays
                lists = build(pa.array(offsets), ids)
                writer.write_table(
                    pa.table([pa.array(np.arange(first, first + count)), lists], schema=schema)
                )


def resident_mib() -> float:
    """Returns the memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(config: BenchmarkConfig) -> Iterator[str]:
    """Runs the benchmark and yields its lines."""
    root = Path(str(config.folder))
    write_input(root / "input", config.rows, config.prompt_tokens, config.seed)
    base_mib, began_s = resident_mib(), time.perf_counter()
    files = list_input(str(root / "input"))
    schema = inspect_columns(files, InputColumns("generate"))
    check_unique_ids(files, schema.id_column)
    shards, folder = plan_shards(files, config.shard_rows), RunFolder(str(root / "run"))
    yield f"plan: {time.perf_counter() - began_s:.1f} s for {config.rows:,} rows in {len(shards):,} shards (listing, ids, shards)"
    clock = SimulatedClock()
    replicas = SimulatedReplicas(config, clock)
    max_len = 8 * config.prompt_tokens + config.max_tokens
    pipeline = Pipeline(
        schema=schema,
        tokenizer=None,
        rules=RequestRules(
            "generate", VOCABULARY, max_len, defaults=SamplingParams(max_tokens=config.max_tokens)
        ),
        buckets=BucketConfig(prompt_size_buckets(max_len), config.batch_tokens),
        dispatch=DispatchConfig(config.in_flight, max_attempts=10, clock=clock.now),
        replicas=replicas,
        writer=Writer(
            folder,
            output_schema(schema, task="generate", logprobs=0, prompt_logprobs=None, choices=False),
            "benchmark",
        ),
        progress=Progress(config.rows, clock=clock.now),
    )
    yield f"memory before the first row: {resident_mib():,.0f} MiB (of it {base_mib:,.0f} libraries and input generator)"
    done, next_mark = 0, 1
    todo = remaining(shards, read_state(folder, shards, "benchmark"))
    for committed in run(todo, pipeline):
        done += committed.rows
        if done >= next_mark * config.rows / 4:
            yield f"memory at {done:>12,} rows: {resident_mib():,.0f} MiB, {done / clock.driver_s:,.0f} rows/s"
            next_mark = int(4 * done / config.rows) + 1
    driver_s, cpu_s, total_s = clock.driver_s, clock.driver_cpu_s, clock.now()
    finish(folder, shards, folder.committed())
    replicas.close()
    yield f"rows/s of the driver alone: {config.rows / driver_s:,.0f} by the clock, {config.rows / cpu_s:,.0f} by processor time"
    clock_ms, cpu_ms = 1e3 * driver_s / replicas.batches, 1e3 * cpu_s / replicas.batches
    yield (
        f"driver time per batch: {clock_ms:.3f} ms by the clock, {cpu_ms:.3f} ms of processor time "
        f"({replicas.batches:,} "
        f"batches of {config.rows / replicas.batches:.1f} rows)"
    )
    yield f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB"
    yield (
        f"simulated: {total_s:,.0f} s, the driver worked {driver_s / total_s:.1%} of it; replicas "
        "idle "
        f"{1 - replicas.busy_s / replicas.up_s:.1%}; tail after the last batch was handed out "
        f"{(total_s - replicas.last_submit_s) / total_s:.1%}; {replicas.losses:,} replicas lost"
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line; returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    config = parse(
        BenchmarkConfig,
        arguments,
        program="benchmark_driver.py",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    try:
        for line in measure(config):
            print(line, flush=True)
    finally:
        shutil.rmtree(str(config.folder), ignore_errors=True)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
