"""Seeds and templates → a folder of request rows.

Or, for a dry run, the first prompts and what a run over all would take.
"""

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.run import dry_run
from jobs.run.plan import describe_run, make_plan
from jobs.synthesis.config import GenerateConfig
from pipeline.errors import DatasetError
from pipeline.input.shards import list_input, plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.monitoring.run_log import RunLog
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import check_run, fingerprint, input_keys
from pipeline.output.run_state import read_state, remaining
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.prompts.builder import PromptBuilder
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import SeedSchema, inspect_seeds, read_seeds
from pipeline.synthesis.prompts.shots import Shots, read_shots
from pipeline.synthesis.prompts.templates import PromptTemplate
from pipeline.synthesis.selection.selection import Selection

SHOWN_PROMPTS, SAMPLED_ROWS, SAMPLED_SHARDS = 3, 256, 8
TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """Everything that prompts depend on, checked."""

    files: tuple[InputFile, ...]
    schema: SeedSchema
    shards: tuple[Shard, ...]
    templates: tuple[PromptTemplate, ...]
    shots: Shots
    seed: int

    @property
    def builder(self) -> PromptBuilder:
        """What makes prompts of rows."""
        return PromptBuilder(self.templates, self.shots, self.seed, self.schema)

    def keys(self, config: GenerateConfig) -> dict[str, Any]:
        """Returns all that the prompts depend on."""
        return {
            "templates": [
                [each.spec.name, each.spec.weight, each.spec.text] for each in self.templates
            ],
            "shots": {"digest": self.shots.digest, "per_row": self.shots.per_row},
            "seed": self.seed,
            "columns": {"id": config.id_column, "keep": list(config.keep)},
            "shards": {"shard_rows": config.shard_rows, "limit": config.limit},
            "input": input_keys(self.files),
        }


def plan_seeds(config: GenerateConfig) -> SeedPlan:
    """Reads listings, footers, ids, templates and examples, and checks that they fit, the rules of the selection included.

    Raises:
        ConfigError, DatasetError: something does not; nothing was started.
    """
    templates = tuple(PromptTemplate(spec) for spec in config.template_specs())
    shots = (
        Shots()
        if config.shots is None
        else read_shots(config.shots, config.shots_per_row, config.id_column)
    )
    files = list_input(str(config.input), config.limit)
    schema = inspect_seeds(files, config.id_column, config.keep)
    for template in templates:
        template.check(schema.columns, shots=config.shots is not None)
    check_unique_ids(files, schema.id_column, config.limit)
    plan = SeedPlan(
        files,
        schema,
        plan_shards(files, config.shard_rows, config.limit),
        templates,
        shots,
        config.seed,
    )
    Selection(config.rules(), schema.passed_on, logprobs=True, partition_by=config.partition_by)
    return plan


def write_prompts(config: GenerateConfig, plan: SeedPlan, url: str, log: RunLog) -> PromptsFolder:
    """Writes the prompts of all seeds into the folder `url`, or those that are not there yet.

    Raises:
        ConfigError: the folder holds other prompts.
        DatasetError: a file cannot be read or written, or no row gave a prompt.
    """
    prompts, keys = PromptsFolder(url), plan.keys(config)
    check_run(
        prompts.folder,
        keys,
        describe_run(config, plan.files, len(plan.shards)),
        resume=config.resume,
    )
    mark = fingerprint(keys)
    prompts.folder.remove_abandoned()
    todo = remaining(plan.shards, read_state(prompts.folder, plan.shards, mark))
    ticker = _Ticker(sum(shard.rows for shard in todo), log)
    made = (plan.builder.build(block) for block in read_seeds(todo, plan.schema))
    prompts.write(todo, plan.shards, made, mark, ticker.tell)
    parts = prompts.parts()
    rows, rejected = (
        sum(part.file.rows for part in parts),
        sum(part.rejected_rows for part in parts),
    )
    log.result(
        "prompts",
        f"prompts  {url}: {rows:,} rows, {rejected:,} seed rows without a prompt",
        rows=rows,
        rejected=rejected,
    )
    if not rows:
        first = prompts.rejected(parts[0]).slice(0, 1).to_pylist()[0]
        raise DatasetError(
            f"none of {rejected:,} seed rows gave a prompt; the first: {first['reason']} "
            f"({first['detail']}); all are in "
            f"{redact_credentials(url)}/rejected. Correct the templates or the seeds, and choose "
            "another --output"
        )
    return prompts


def show_prompts(config: GenerateConfig, plan: SeedPlan) -> None:
    """Prints the first prompts, and what a sample of the seeds says about all of them.

    Leaves nothing behind.

    Raises:
        ConfigError, DatasetError, ModelError: the run could not begin.
    """
    rows = sum(shard.rows for shard in plan.shards)
    step = max(1, len(plan.shards) // SAMPLED_SHARDS)
    sampled = [
        dataclasses.replace(each, rows=min(each.rows, SAMPLED_ROWS))
        for each in plan.shards[::step][:SAMPLED_SHARDS]
    ]
    made = [plan.builder.build(block) for block in read_seeds(sampled, plan.schema)]
    requests = pa.concat_tables(each.requests for each in made)
    rejected = pa.concat_tables(each.rejected for each in made)
    _print_lines(_shown(requests, rejected))
    scale = rows / (requests.num_rows + rejected.num_rows)
    print(f"seed rows                {rows:,}")
    print(
        f"without a prompt         {round(rejected.num_rows * scale):,} (of "
        f"{requests.num_rows + rejected.num_rows:,} tried)"
    )
    print(
        f"samples                  {round(requests.num_rows * scale * config.n):,} (--n {config.n})"
    )
    if requests.num_rows:
        _print_lines(dry_run.lines(_estimate(config, requests, scale)))


def _estimate(config: GenerateConfig, requests: pa.Table, scale: float) -> dict[str, object]:
    """Returns the main job's estimate for prompts like these, `scale` times as many."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.parquet"
        file.write_bytes(to_parquet(requests))
        main_job = dataclasses.replace(config.main_job(str(file), folder), dry_run=True)
        figures = dry_run.estimate(make_plan(main_job))
    grows = (
        "rows",
        "shards",
        "rows_failing",
        "prompt_tokens",
        "new_tokens_at_most",
        "batches",
        "hours",
        "replica_hours",
        "cost",
    )
    return {
        name: type(value)(value * scale)
        if name in grows and isinstance(value, int | float)
        else value
        for name, value in figures.items()
    }


def _shown(requests: pa.Table, rejected: pa.Table) -> Iterator[str]:
    for row in requests.slice(0, SHOWN_PROMPTS).to_pylist():
        yield f"--- {row['id']} ({row['template']}), {len(row['prompt']):,} characters"
        yield row["prompt"]
        yield "---"
    for row in rejected.slice(0, SHOWN_PROMPTS).to_pylist():
        yield f"rejected {row['id']}: {row['reason']}: {row['detail']}"


def _print_lines(lines: Sequence[str] | Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


class _Ticker:
    """Says now and then how far the prompts are."""

    def __init__(self, total: int, log: RunLog) -> None:
        self._total, self._log, self._done, self._said_s = total, log, 0, time.monotonic()

    def tell(self, rows: int) -> None:
        """Counts further rows."""
        self._done += rows
        if time.monotonic() - self._said_s >= TELL_EVERY_S:
            self._said_s = time.monotonic()
            message = f"prompts  {self._done:,} of {self._total:,} seed rows"
            self._log.event("prompts_progress", message, rows=self._done, rows_total=self._total)
