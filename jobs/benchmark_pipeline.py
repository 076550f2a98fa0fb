"""What do prefixes save on real prompts, and how much of the engine's speed is left from Parquet to Parquet? → a table.

    python jobs/benchmark_pipeline.py --input PROMPTS --tokenizer MODEL --folder FOLDER [--task
    score] [--model small]

Takes the prompts of an input of the main job, with a model of random weights: lengths and common
beginnings are the input's, the token ids are others in every pass, so that each pass begins with a
cache that knows none of its prefixes. One replica on a local Ray runs them in turn through the
whole pipeline, Parquet to Parquet, and as one batch handed to it directly: the engine alone. The
first pass of either kind compiles and is not counted. Left out is text: ids are read, and none are
turned into text.
"""

import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from actors.model.config import PRESETS
from actors.protocol.events import Assignment, BatchDone, Event, ReplicaReady
from actors.protocol.messages import Batch, Completion, ReplicaInfo, ReplicaStats, Request
from jobs.benchmarks.prefix_gain import ideal_gain, sequences
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse
from jobs.run.backend import RAY
from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan
from pipeline.dispatch.buckets import fill_batches
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.errors import ConfigError
from pipeline.input.reader import read_rows
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.output.schema import output_schema
from pipeline.output.writer import Writer
from pipeline.records import UnreadableShard
from pipeline.requests.tokenizer import RequestRules, Tokenizer, to_requests
from pipeline.run import Pipeline, run

FIRST_ID = 3  # below lie pad, EOS and the like
SPENT = ("prefill", "decode", "between calls", "without work")


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of jobs/benchmark_pipeline.py.

    Raises:
        ConfigError: flags are missing or do not fit.
    """

    input: str | None = flag(None, "input of the main job, with text; required", short="-i")
    tokenizer: str | None = flag(None, "SentencePiece model that cuts the text; required")
    folder: str | None = flag(
        None, "local folder for weights, prompts and results, made and deleted; required"
    )
    task: Literal["generate", "score"] = flag(
        "generate", "as in the main job; score needs a column choices or continuation"
    )
    continuation_column: str = flag("continuation", "as in the main job")
    model: Literal["small", "demo"] = flag("small", "preset; weights are random")
    mesh: str = flag("1x1", "DATAxMODEL virtual devices of the replica")
    dtype: Literal["bfloat16", "float32"] = flag("bfloat16", "activations")
    max_tokens: int = flag(64, "completions have half to one and a half times as many tokens")
    copies: int = flag(1, "how often the input is taken in each pass, each time with other ids")
    rounds: int = flag(3, "counted passes of each kind; medians are shown")
    batch_tokens: int = flag(8192, "token budget of one batch, as in the main job")
    limit: int | None = flag(None, "only the first N rows of the input")
    json: str | None = flag(None, "file for the figures")

    def __post_init__(self) -> None:
        for name in ("input", "tokenizer", "folder"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is missing; see --help")
        if Path(str(self.folder)).exists():
            raise ConfigError(
                f"--folder: {self.folder} exists and would be deleted; name a new one"
            )


@dataclass(frozen=True)
class Pass:
    """What one pass over the prompts took; seconds without compilation."""

    seconds: float
    stats: ReplicaStats  # what the counters grew by

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens and drawn ones, whether computed or found in the cache."""
        return (self.stats.prompt_tokens + self.stats.generated_tokens) / self.seconds

    def spent(self) -> dict[str, float]:
        """Returns the seconds by what the engine was doing."""
        stats = self.stats
        calls_s = stats.prefill_s + stats.decode_s
        return {
            "prefill": stats.prefill_s,
            "decode": stats.decode_s,
            "between calls": stats.busy_s - calls_s,
            "without work": self.seconds + stats.compile_s - stats.busy_s,
        }


@dataclass(frozen=True)
class OnlyReplica:
    """One replica that is up already, for a pipeline that ends before the replica does."""

    pool: Any
    name: str
    info: ReplicaInfo | None
    announced: list[bool]
    up: int = 1
    wanted: int = 1

    def submit(self, assignment: Assignment) -> None:
        """Hands a batch over."""
        self.pool.submit(assignment)

    def want(self, count: int) -> None:
        """It stays."""

    def retire(self, replica: str) -> None:
        """It stays."""

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Says first that it is up, then what happens."""
        if not self.announced:
            self.announced.append(True)
            return [ReplicaReady(self.name, self.info)]
        found: Sequence[Event] = self.pool.events(timeout_s)
        return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    return run_command(
        lambda: _run(
            parse(
                BenchmarkConfig,
                arguments,
                program="benchmark_pipeline.py",
                description=str(__doc__),
            )
        )
    )


def _run(config: BenchmarkConfig) -> int:
    from actors.weights import checkpoint

    folder = Path(str(config.folder))
    folder.mkdir(parents=True)
    try:
        checkpoint.write(checkpoint.random_parameters(PRESETS[config.model], 0), folder / "ckpt-0")
        passes = 2 * (config.rounds + 1)
        requests = _requests(config)
        plans = [_plan(config, folder, requests, number) for number in range(passes)]
        with ExitStack() as stack:
            pool, name, info = _start(plans[0], stack)
            took: dict[str, list[Pass]] = {"pipeline": [], "engine": []}
            for number, plan in enumerate(plans):
                kind = "engine" if number % 2 else "pipeline"
                replica = OnlyReplica(pool, name, info, [])
                took[kind].append(
                    _engine_alone(plan, replica)
                    if number % 2
                    else _pipeline_pass(plan, folder / f"run-{number}", replica)
                )
        figures = _figures(config, plans[-1], {kind: each[1:] for kind, each in took.items()})
    finally:
        shutil.rmtree(folder)
    show(figures)
    if config.json:
        Path(config.json).write_text(json.dumps(figures, indent=2) + "\n")
    return ExitCode.OK


# -- prompts ---------------------------------------------------------------------------------------------------------------------


def _plan(config: BenchmarkConfig, folder: Path, requests: Sequence[Request], number: int) -> Plan:
    """Writes the prompts of a pass and returns the main job's plan for them."""
    prompts = folder / f"prompts-{number}.parquet"
    pq.write_table(_shifted(config, requests, number), prompts)
    return make_plan(
        ScoreConfig(
            input=str(prompts),
            output=str(folder / f"run-{number}"),
            model=config.model,
            checkpoint=str(folder / "ckpt-0"),
            task=config.task,
            ignore_eos=True,
            mesh=config.mesh,
            dtype=config.dtype,
            batch_tokens=config.batch_tokens,
        )
    )


def _shifted(config: BenchmarkConfig, requests: Sequence[Request], number: int) -> pa.Table:
    """Returns the prompts with the ids of pass `number`: equal beginnings stay equal, no pass has one with another in common."""
    vocabulary, drawn = PRESETS[config.model].vocab_size - FIRST_ID, random.Random(0)
    columns: dict[str, list[Any]] = {
        "prompt_token_ids": [],
        "max_tokens": [],
        "choices_token_ids": [],
    }
    for copy in range(config.copies):
        shift = 997 * (number * config.copies + copy) + FIRST_ID
        for request in requests:
            columns["prompt_token_ids"].append(
                [FIRST_ID + (token + shift) % vocabulary for token in request.prompt_ids]
            )
            columns["max_tokens"].append(
                drawn.randint(max(1, config.max_tokens // 2), config.max_tokens * 3 // 2)
            )
            choices = [
                [FIRST_ID + (token + shift) % vocabulary for token in ids]
                for ids in request.continuations
            ]
            columns["choices_token_ids"].append(choices)
    kinds = {
        "prompt_token_ids": pa.list_(pa.int32()),
        "max_tokens": pa.int32(),
        "choices_token_ids": pa.list_(pa.list_(pa.int32())),
    }
    absent = "max_tokens" if config.task == "score" else "choices_token_ids"
    return pa.table(
        {name: pa.array(values, kinds[name]) for name, values in columns.items() if name != absent}
    )


def _requests(config: BenchmarkConfig) -> list[Request]:
    """Returns the requests of the input, with the tokenizer's own ids."""
    plan = make_plan(
        ScoreConfig(
            input=config.input,
            output=str(Path(str(config.folder)) / "none"),
            dry_run=True,
            tokenizer=config.tokenizer,
            task=config.task,
            continuation_column=config.continuation_column,
            max_tokens=config.max_tokens if config.task == "generate" else None,
            limit=config.limit,
        )
    )
    found = list(_all_requests(plan, plan.tokenizer, plan.rules))
    longest = PRESETS[config.model].sequence_len
    too_long = max(request.longest for request in found) + config.max_tokens // 2
    if too_long > longest:
        raise ConfigError(
            f"--model {config.model} holds {longest} tokens, the longest prompt needs {too_long} "
            "with its completion"
        )
    return found


def _all_requests(
    plan: Plan, tokenizer: Tokenizer | None, rules: RequestRules
) -> Iterator[Request]:
    rows = read_rows(plan.shards, plan.schema)
    for item in to_requests(rows, tokenizer, rules):
        if isinstance(item, UnreadableShard):
            raise item.error
        if isinstance(item, Completion):
            raise ConfigError(
                f"--input: row {item.ref.row} of shard {item.ref.shard} cannot run: "
                f"{item.error_message}"
            )
        if isinstance(item, Request):
            yield item


# -- passes ----------------------------------------------------------------------------------------------------------------------


def _start(plan: Plan, stack: ExitStack) -> tuple[Any, str, ReplicaInfo | None]:
    """Starts one replica on a Ray of its own; returns the pool, its name and its information."""
    os.environ["RAY_ADDRESS"] = "local"
    from actors.pool.replica_pool import PoolConfig, ReplicaPool
    from jobs.run.cluster import ray_cluster

    stack.enter_context(ray_cluster(1))
    data, model = plan.config.mesh_shape()
    pool = stack.enter_context(
        ReplicaPool(
            plan.replica_spec(), PoolConfig(1, 1, data * model, RAY.batches_in_flight, "cpu")
        )
    )
    pool.wait_for_minimum()
    ready = next(event for event in pool.events(1.0) if isinstance(event, ReplicaReady))
    return pool, ready.replica, ready.info


def _pipeline_pass(plan: Plan, folder: Path, replica: OnlyReplica) -> Pass:
    """Runs a pass from Parquet to Parquet, as the main job does."""
    before = _stats(replica)
    rows = sum(shard.rows for shard in plan.shards)
    progress = Progress(rows, replicas=lambda: (1, 1))
    config = plan.config
    schema = output_schema(
        plan.schema,
        task=config.task,
        logprobs=config.logprobs,
        prompt_logprobs=None,
        choices=plan.schema.has_choices,
    )
    pipeline = Pipeline(
        schema=plan.schema,
        tokenizer=None,
        rules=plan.rules,
        buckets=plan.bucket_config(),
        dispatch=DispatchConfig(RAY.batches_in_flight),
        replicas=replica,
        writer=Writer(RunFolder(str(folder)), schema, "benchmark"),
        progress=progress,
    )
    began = time.perf_counter()
    progress.begin()
    for _ in run(plan.shards, pipeline):
        continue
    seconds = time.perf_counter() - began
    if progress.error_rows:
        raise ConfigError(f"{progress.error_rows} rows failed")
    return _pass(seconds, before, _stats(replica))


def _engine_alone(plan: Plan, replica: OnlyReplica) -> Pass:
    """Runs a pass as one batch: all that the engine can do, with nothing to wait for."""
    batches = fill_batches(_all_requests(plan, None, plan.rules), plan.bucket_config())
    requests = tuple(request for batch in batches for request in batch.requests)
    before = _stats(replica)
    began = time.perf_counter()
    after = _answer(replica, Batch(requests))
    return _pass(time.perf_counter() - began, before, after)


def _stats(replica: OnlyReplica) -> ReplicaStats:
    """Asks with an empty batch."""
    return _answer(replica, Batch(()))


def _answer(replica: OnlyReplica, batch: Batch) -> ReplicaStats:
    replica.pool.submit(Assignment(0, batch, replica.name))
    while True:
        for event in replica.pool.events(1.0):
            if not isinstance(event, BatchDone):
                raise ConfigError(f"the replica was lost: {event}")
            return event.result.stats


def _pass(seconds: float, before: ReplicaStats, after: ReplicaStats) -> Pass:
    grown = ReplicaStats(
        **{
            each.name: getattr(after, each.name) - getattr(before, each.name)
            for each in fields(ReplicaStats)
        }
    )
    return Pass(seconds - grown.compile_s, grown)


# -- figures ---------------------------------------------------------------------------------------------------------------------


def _figures(config: BenchmarkConfig, plan: Plan, took: dict[str, list[Pass]]) -> dict[str, Any]:
    page, read = plan.engine_config().page_size, config.task == "score"
    computed = sequences(_all_requests(plan, None, plan.rules))
    tokens, shown = sum(map(len, computed)), {}
    for kind, passes in took.items():
        stats = passes[-1].stats
        time_s = {name: statistics.median(each.spent()[name] for each in passes) for name in SPENT}
        shown[kind] = {
            "seconds": statistics.median(each.seconds for each in passes),
            "tokens_per_s": statistics.median(each.tokens_per_s for each in passes),
            "prefill_tokens": stats.prefill_tokens,
            "extend_tokens": stats.prefill_tokens,  # deprecated key
            "gain": tokens / stats.prefill_tokens,
            "padding": 1 - stats.prefill_tokens / stats.prefill_positions,
            "decode_rows_used": stats.generated_tokens / stats.decode_positions
            if stats.decode_positions
            else None,
            "compile_s": stats.compile_s,
            "calls": {
                "prefill": stats.prefill_calls,
                "decode": stats.decode_calls,
                "extend": stats.prefill_calls,  # deprecated key
            },
            "time": {**time_s, "extend": time_s["prefill"]},  # deprecated key
        }
    ratios = [
        ours.tokens_per_s / bare.tokens_per_s
        for ours, bare in zip(took["pipeline"], took["engine"], strict=True)
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "config": {name: value for name, value in asdict(config).items() if name != "folder"},
        "rows": sum(shard.rows for shard in plan.shards),
        "tokens": tokens,
        "ideal_gain": {
            "page": page,
            "pages": ideal_gain(computed, page, last_is_read=read),
            "tokens": ideal_gain(computed, 1, last_is_read=read),
        },
        "efficiency": ratios,
        **shown,
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    ideal, config = figures["ideal_gain"], figures["config"]
    print(
        f"{config['input']}: {figures['rows']:,} rows, {figures['tokens']:,} tokens to compute, "
        f"model {config['model']}"
    )
    print(
        f"ideal gain {ideal['pages']:.2f} with pages of {ideal['page']} tokens, "
        f"{ideal['tokens']:.2f} token by token"
    )
    table = Table()
    for name in ("", "tokens/s", "computed", "gain", "of ideal", "padding", "decode rows used"):
        table.add_column(name, justify="right")
    for kind, label in (("engine", "engine alone"), ("pipeline", "Parquet to Parquet")):
        one = figures[kind]
        used = "" if one["decode_rows_used"] is None else f"{one['decode_rows_used']:.1%}"
        gain = (f"{one['gain']:.2f}", f"{one['gain'] / ideal['pages']:.0%}")
        table.add_row(
            label,
            f"{one['tokens_per_s']:,.0f}",
            f"{one['prefill_tokens']:,}",
            *gain,
            f"{one['padding']:.1%}",
            used,
        )
    Console().print(table)
    for kind, label in (("engine", "engine alone"), ("pipeline", "Parquet to Parquet")):
        seconds = figures[kind]["time"]
        spent = ", ".join(f"{name} {seconds[name]:.2f}" for name in SPENT)
        counts = figures[kind]["calls"]
        calls = f"{counts['prefill']} prefill, {counts['decode']} decode"
        print(f"{label}: seconds of the engine {spent}; calls {calls}")
    each = ", ".join(f"{ratio:.1%}" for ratio in figures["efficiency"])
    print(
        f"Parquet to Parquet reaches {statistics.median(figures['efficiency']):.1%} of the engine "
        f"alone ({each})"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
