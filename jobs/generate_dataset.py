"""Generates a data set with a data card from seed rows, prompt templates and a model.

    # all three steps
    python jobs/generate_dataset.py -C recipe.yaml [--flag value …]
    # one step
    python jobs/generate_dataset.py prompts -i seeds.parquet --templates.NAME TEXT -o PROMPTS
    python jobs/generate_dataset.py run --prompts PROMPTS -o RUN [model and sampling flags]
    python jobs/generate_dataset.py select --prompts PROMPTS --completions RUN -o DATASET [rules]

Exit codes are those of jobs/score_dataset.py, and 6: the data set is complete, but has fewer rows
than --target-rows.

Rows run through the main job. The same command continues an interrupted run and produces the same
data set as an undisturbed one.
"""

import dataclasses
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.run.backend import RAY, Backend
from jobs.run.early_stopping import NEVER_STOP, EarlyStopping
from jobs.run.execute import run_job
from jobs.run.metrics import run_label
from jobs.synthesis.config import GenerateConfig, Step
from jobs.synthesis.early_stopping import SelectionStopping, check_rules
from jobs.synthesis.prompts import plan_seeds, show_prompts, write_prompts
from jobs.synthesis.selection import check_dataset, select
from pipeline import storage
from pipeline.monitoring.live_view import showing
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard
from pipeline.synthesis.prompts.folder import PromptsFolder

STEPS: tuple[Step, ...] = ("prompts", "run", "select")
DESCRIPTION = (
    "Synthetic data: seed rows and Jinja templates, prompts, completions, and a data set of those "
    "that are accepted. Steps: prompts (seeds to request rows), run (request rows to output rows, "
    "as the main job does), select (output rows to a data set with a data card); without a step "
    "all three. Exit code 6: fewer rows than --target-rows. More in docs/synthesis.md."
)


class _RetryFailed(EarlyStopping):
    """Runs the failed rows of committed shards again, and no other shard."""

    def select_shards(self, remaining: Sequence[Shard]) -> Sequence[Shard]:
        return [shard for shard in remaining if shard.only is not None]


class _StopAtOnce(EarlyStopping):
    """Ends a run whose data set is complete."""

    def should_stop(self, replica_hours: float) -> bool:
        return True


def main(
    arguments: Sequence[str],
    backend: Backend = RAY,
    executor: Executor | None = None,
    *,
    program: str = "generate_dataset.py",
) -> int:
    """Runs the steps of a command line and returns the exit code.

    Args:
        arguments: of the command line.
        backend: starts replicas.
        executor: runs the selection during the run; None: a thread.
        program: name of the command in its --help.
    """
    step: Step = "all"
    flags = arguments
    for name in STEPS:
        if name in arguments[:1]:
            step = name
            flags = arguments[1:]
    log = RunLog()
    try:
        usage = f"{program} [{'|'.join(STEPS)}]"
        config = parse(GenerateConfig, flags, program=usage, description=DESCRIPTION)
        log = RunLog(config.log_format, run=run_label(str(config.output)))
        return run_step(step, config, log, backend, executor)
    except GrokBatchError as error:
        return log.failed(error, ExitCode.BAD_ARGUMENTS)


def run_step(
    step: Step,
    config: GenerateConfig,
    log: RunLog,
    backend: Backend = RAY,
    executor: Executor | None = None,
) -> int:
    """Runs one step or all of them, and returns the exit code.

    Args:
        step: the step, or `all`.
        config: of the data set.
        log: receives events, results and known errors of the run.
        backend: starts replicas.
        executor: runs the selection during the run; None: a thread.

    Raises:
        GrokBatchError: a flag is missing, or data cannot be used.
    """
    config.require(step)
    output = str(config.output)
    if step == "run":
        prompts = PromptsFolder(str(config.prompts))
        return run_prompts(config, prompts, output, log, backend=backend, executor=executor)
    if step == "select":
        with showing("selecting rows", log):
            return select(config, str(config.prompts), str(config.completions), output, log)
    with showing("reading the seeds", log):
        plan = plan_seeds(config)
    if config.dry_run:
        show_prompts(config, plan)
        return ExitCode.OK
    if step == "prompts":
        write_prompts(config, plan, output, log)
        return ExitCode.OK
    prompts = write_prompts(config, plan, storage.join(output, "prompts"), log)
    return _run_and_select(config, prompts, output, log, backend, executor)


def _run_and_select(
    config: GenerateConfig,
    prompts: PromptsFolder,
    output: str,
    log: RunLog,
    backend: Backend,
    executor: Executor | None,
) -> int:
    completions_url = storage.join(output, "completions")
    dataset_url = storage.join(output, config.dataset)
    check_dataset(config, dataset_url)
    if config.resume == "require":  # the prompts were there; the run may not have begun
        config = dataclasses.replace(config, resume="auto")

    early_stopping = None
    if RunFolder(dataset_url).finished():
        early_stopping = _StopAtOnce()
    code = run_prompts(config, prompts, completions_url, log, early_stopping, backend, executor)
    if not code.is_complete:
        return code
    try:
        with showing("selecting rows", log):
            return select(config, prompts.url, completions_url, dataset_url, log, flag="--dataset")
    except GrokBatchError as error:
        return log.failed(error, ExitCode.FAILED)


def run_prompts(
    config: GenerateConfig,
    prompts: PromptsFolder,
    output: str,
    log: RunLog,
    early_stopping: EarlyStopping | None = None,
    backend: Backend = RAY,
    executor: Executor | None = None,
) -> ExitCode:
    """Runs the prompts through the main job, until there are enough rows; returns its exit code.

    Args:
        config: configuration of model, sampling and selection.
        prompts: folder of the prompts.
        output: run folder.
        log: receives events, results and known errors of the run.
        early_stopping: ends the run; None: the rule of the configuration.
        backend: starts replicas.
        executor: runs the selection during the run; None: a thread.

    Raises:
        DatasetError: the prompts are not complete.
        ConfigError: the rules of the selection do not fit the prompts.
    """
    check_rules(config, prompts)
    main_job = config.main_job(prompts.folder.data_url, output)
    main_job = dataclasses.replace(main_job, dry_run=config.dry_run, json=config.json)
    has_run = storage.stat(RunFolder(output).run_url) is not None
    if config.retry_failed and has_run and not config.dry_run:
        code = run_job(main_job, backend, _RetryFailed(), log)
        if not code.is_complete:
            return code

    if early_stopping is None:
        early_stopping = NEVER_STOP
        if config.may_end_early:
            early_stopping = SelectionStopping(config, prompts, output, executor)
    try:
        main_job = dataclasses.replace(main_job, retry_failed=False)
        return run_job(main_job, backend, early_stopping, log)
    finally:
        early_stopping.close()


if __name__ == "__main__":
    run_main(main)
