"""Step `prompts`: writes request rows from seeds and templates, or estimates a run in a dry run."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import bare, one_line, plain_message
from jobs.run import dry_run
from jobs.run.description import describe_run
from jobs.run.execute import log_skipped_files
from jobs.run.plan import make_plan
from jobs.synthesis.config import GenerateConfig
from pipeline.errors import DatasetError
from pipeline.input.listing import SkippedFile, describe_skipped, read_listing
from pipeline.input.shards import plan_shards
from pipeline.input.unique_ids import check_unique_ids
from pipeline.monitoring.live_view import LiveView
from pipeline.monitoring.run_log import RunLog
from pipeline.output.input_content import content_digests, run_input_keys
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import check_run, fingerprint, input_keys
from pipeline.output.run_state import read_state, remaining
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.prompts.builder import PromptBuilder, Prompts
from pipeline.synthesis.prompts.folder import PromptsFolder
from pipeline.synthesis.prompts.seed_rows import SeedSchema, inspect_seeds, read_seeds
from pipeline.synthesis.prompts.shots import Shots, read_shots
from pipeline.synthesis.prompts.templates import PromptTemplate
from pipeline.synthesis.selection.selection import Selection

PRINTED_ROWS = 3
SAMPLED_ROWS = 256
SAMPLED_SHARDS = 8


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """Everything on which prompts depend, checked."""

    files: tuple[InputFile, ...]
    schema: SeedSchema
    shards: tuple[Shard, ...]
    templates: tuple[PromptTemplate, ...]
    shots: Shots
    seed: int
    skipped: tuple[SkippedFile, ...] = ()  # files of the seeds that are not read

    @property
    def builder(self) -> PromptBuilder:
        """The builder of prompts."""
        return PromptBuilder(self.templates, self.shots, self.seed, self.schema)

    def build(self, shards: Sequence[Shard]) -> Iterator[Prompts]:
        """Yields the prompts of each shard."""
        builder = self.builder
        for block in read_seeds(shards, self.schema):
            yield builder.build(block)

    def keys(self, config: GenerateConfig) -> dict[str, Any]:
        """Returns everything on which the prompts depend, for the fingerprint."""
        specs = [template.spec for template in self.templates]
        keys = {
            "templates": [[spec.name, spec.weight, spec.text] for spec in specs],
            "shots": {"digest": self.shots.digest, "per_row": self.shots.per_row},
            "seed": self.seed,
            "columns": {"id": config.id_column, "keep": list(config.keep)},
            "shards": {"shard_rows": config.shard_rows, "limit": config.limit},
            "input": input_keys(self.files),
        }
        # Prompts of versions that did not have these columns have no such key.
        if self.schema.folder_columns:
            keys["folder_columns"] = list(self.schema.folder_columns)
        return keys


def plan_seeds(config: GenerateConfig) -> SeedPlan:
    """Reads listings, footers, ids, templates and examples, and checks them.

    The rules of the selection are checked against them, too.

    Raises:
        ConfigError: a flag does not fit the seeds; nothing was started.
        DatasetError: the seeds cannot be used; nothing was started.
    """
    templates = tuple(PromptTemplate(spec) for spec in config.template_specs())
    shots = Shots()
    if config.shots is not None:
        shots = read_shots(config.shots, config.shots_per_row, config.id_column)

    listing = read_listing(str(config.input), config.limit, config.output)
    files = listing.files
    schema = inspect_seeds(files, config.id_column, config.keep)
    for template in templates:
        template.check(schema.columns, shots=config.shots is not None)
    check_unique_ids(files, schema.id_column, config.limit)
    shards = plan_shards(files, config.shard_rows, config.limit)
    Selection(config.rules(), schema.passed_on, logprobs=True, partition_by=config.partition_by)
    return SeedPlan(files, schema, shards, templates, shots, config.seed, listing.skipped)


def write_prompts(config: GenerateConfig, plan: SeedPlan, url: str, log: RunLog) -> PromptsFolder:
    """Writes the prompts of all seeds into the folder `url`, as far as they are not there.

    Raises:
        ConfigError: the folder holds other prompts.
        DatasetError: a file cannot be read or written, or no row has a prompt.
    """
    prompts = PromptsFolder(url)
    keys = plan.keys(config)
    keys["input"] = run_input_keys(prompts.folder, plan.files)
    digests: dict[str, str] = {}
    if not prompts.folder.exists():
        digests = content_digests(plan.files)
    log_skipped_files(plan.skipped, log)
    description = describe_run(config, plan.files, len(plan.shards), plan.skipped, digests)
    check_run(prompts.folder, keys, description, resume=config.resume)

    prompts_fingerprint = fingerprint(keys)
    prompts.folder.remove_abandoned()
    state = read_state(prompts.folder, plan.shards, prompts_fingerprint)
    todo = remaining(plan.shards, state)
    for notice in plan.schema.notices:
        log.event("notice", f"note: {notice}")
    with LiveView(log) as view:
        view.begin("writing prompts", rows_total=sum(shard.rows for shard in todo))
        for shard in prompts.write(todo, plan.shards, plan.build(todo), prompts_fingerprint):
            view.advance(shard.rows)

    parts = prompts.parts()
    rows = sum(part.file.rows for part in parts)
    rejected = sum(part.rejected_rows for part in parts)
    log.result(
        "prompts",
        f"prompts  {url}: {rows:,} rows, {rejected:,} seed rows without a prompt",
        rows=rows,
        rejected=rejected,
    )
    if not rows:
        (first,) = prompts.rejected(parts[0]).slice(0, 1).to_pylist()
        raise DatasetError(
            f"none of {rejected:,} seed rows gave a prompt; the first: {first['reason']} "
            f"({first['detail']}); all are in {redact_credentials(url)}/rejected. Correct the "
            "templates or the seeds, and choose another --output"
        )
    return prompts


def show_prompts(config: GenerateConfig, plan: SeedPlan) -> None:
    """Prints the first prompts, and an estimate for all seeds from a sample of them.

    Leaves nothing behind.

    Raises:
        ConfigError, DatasetError, ModelError: the run could not begin.
    """
    step = max(1, len(plan.shards) // SAMPLED_SHARDS)
    sampled = plan.shards[::step][:SAMPLED_SHARDS]
    shortened = [shard.head(SAMPLED_ROWS) for shard in sampled]
    built = list(plan.build(shortened))
    requests = pa.concat_tables(prompts.requests for prompts in built)
    rejected = pa.concat_tables(prompts.rejected for prompts in built)

    seed_rows = sum(shard.rows for shard in plan.shards)
    sampled_rows = requests.num_rows + rejected.num_rows
    scale = seed_rows / sampled_rows
    without_prompt = round(rejected.num_rows * scale)
    prompt_rows = round(requests.num_rows * scale)
    estimate = None
    estimate_figures = None
    if requests.num_rows:
        estimate = _estimate(config, requests, prompt_rows)
        estimate_figures = estimate.figures()

    if config.json:
        figures = {
            "prompts": requests.slice(0, PRINTED_ROWS).to_pylist(),
            "rejected": rejected.slice(0, PRINTED_ROWS).to_pylist(),
            "seed_rows": seed_rows,
            "without_a_prompt": without_prompt,
            "seed_rows_sampled": sampled_rows,
            "samples": prompt_rows * config.n,
            "estimate": estimate_figures,
        }
        print(json.dumps(figures, indent=2, default=str))
        return

    _print_rows(requests, rejected)
    if plan.skipped:
        print(describe_skipped(plan.skipped))
    print(f"seed rows                {seed_rows:,}")
    print(f"without a prompt         {without_prompt:,} (of {sampled_rows:,} tried)")
    print(f"samples                  {prompt_rows * config.n:,} (--n {config.n})")
    if estimate is not None:
        for line in estimate.lines():
            print(line, flush=True)


def _estimate(config: GenerateConfig, requests: pa.Table, rows: int) -> dry_run.RunEstimate:
    """Returns the main job's estimate for `rows` prompts like these."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.parquet"
        file.write_bytes(to_parquet(requests))
        main_job = dataclasses.replace(config.main_job(str(file), folder), dry_run=True)
        return dry_run.estimate(make_plan(main_job), rows)


def _print_rows(requests: pa.Table, rejected: pa.Table) -> None:
    for row in requests.slice(0, PRINTED_ROWS).to_pylist():
        row_id = bare(row["id"])
        print(f"--- {row_id} ({row['template']}), {len(row['prompt']):,} characters")
        for line in row["prompt"].split("\n"):
            print(one_line(line))
        print("---")
    for row in rejected.slice(0, PRINTED_ROWS).to_pylist():
        print(plain_message(f"rejected {row['id']}: {row['reason']}: {row['detail']}"))
