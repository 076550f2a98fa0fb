"""The jobs as functions: keyword arguments are the flags of the commands, errors are exceptions.

A flag is declared once, as a field of the job's configuration; the functions take the same names
and check values as the command line and job files do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.protocol.errors import GrokBatchError
from grok_batch.flags import takes_flags
from grok_batch.runs import Dataset, Evaluation, Run
from jobs import evaluate as evaluate_job
from jobs import generate_dataset as generate_job
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import read_values
from jobs.evaluation.config import EvaluateConfig
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import machine_plan
from jobs.run.backend import RAY, Backend
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from jobs.synthesis.config import GenerateConfig
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

Location = str | Path


class ApiLog(RunLog):
    """The log of a function: notices and the live view, no results; keeps the error of the job."""

    shows_results = False

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[GrokBatchError] = []

    def failed(self, error: GrokBatchError, exit_code: int, name: str = "error") -> int:
        """Keeps a known error, which the function raises at its end; returns the exit code."""
        error.exit_code = exit_code
        self.failures.append(error)
        return exit_code


@takes_flags(ScoreConfig)
def score(input: Location, output: Location, *, backend: Backend = RAY, **flags: Any) -> Run:  # noqa: A002
    """Computes completions, scores, perplexity, embeddings or targets of a data set.

    The same call again continues a run that was interrupted. Ctrl-C ends the run after the batches
    that replicas hold; a second one ends it at once.

    Args:
        input: Parquet, JSON, CSV or Arrow file, folder or glob; any fsspec URL.
        output: run folder; any fsspec URL.
        backend: starts replicas.
        **flags: of `grok-batch score`, with `_` for `-`.

    Raises:
        GrokBatchError: as the command line reports it; `exit_code` is that of the command.
    """
    config = _configuration(ScoreConfig, {"input": input, "output": output, **flags})
    if config.dry_run:
        raise _bad_argument("dry_run: use grok_batch.plan, which returns the figures")
    code = _run(lambda log: run_job(config, backend, log=log))
    return Run(str(config.output), code)


@takes_flags(EvaluateConfig)
def evaluate(
    tasks: str | tuple[str, ...] | list[str],
    output: Location,
    *,
    backend: Backend = RAY,
    **flags: Any,
) -> Evaluation:
    """Evaluates a model on data sets and compares its metrics with earlier runs.

    A significant loss is no exception: `exit_code` of the result is 5, as on the command line.

    Args:
        tasks: names, such as "mmlu,gsm8k_cot"; "demo" needs no data.
        output: folder of the evaluation; any fsspec URL.
        backend: starts replicas.
        **flags: of `grok-batch evaluate`, with `_` for `-`.

    Raises:
        GrokBatchError: as the command line reports it; `exit_code` is that of the command.
    """
    config = _configuration(EvaluateConfig, {"tasks": tasks, "output": output, **flags})
    code = _run(lambda log: evaluate_job.run_step("all", config, backend, log))
    return Evaluation(str(config.output), code)


@takes_flags(GenerateConfig)
def generate(
    input: Location,  # noqa: A002
    templates: Mapping[str, Any],
    output: Location,
    *,
    backend: Backend = RAY,
    **flags: Any,
) -> Dataset:
    """Generates a data set with a data card from seed rows, prompt templates and a model.

    A data set of fewer rows than `target_rows` is no exception: `exit_code` of the result is 6.

    Args:
        input: seed rows: Parquet or JSON file, folder or glob; any fsspec URL.
        templates: Jinja templates of prompts over the columns of the seeds, by name.
        output: folder of prompts, completions and data set; any fsspec URL.
        backend: starts replicas.
        **flags: of `grok-batch generate`, with `_` for `-`.

    Raises:
        GrokBatchError: as the command line reports it; `exit_code` is that of the command.
    """
    values = {"input": input, "templates": templates, "output": output, **flags}
    config = _configuration(GenerateConfig, values)
    if config.dry_run:
        raise _bad_argument("dry_run: use grok_batch.plan, which returns the figures")
    code = _run(lambda log: generate_job.run_step("all", config, log, backend))
    return Dataset(str(config.output), config.dataset, code)


@takes_flags(PlanConfig)
def plan(**flags: Any) -> dict[str, Any]:
    """Returns memory, slots, hours and cost of a run on each kind of machine: starts nothing.

    Args:
        **flags: of `grok-batch plan`, with `_` for `-`; the content is that of its `--json`.

    Raises:
        GrokBatchError: as the command line reports it.
    """
    config = _configuration(PlanConfig, flags)
    return machine_plan(config).figures()


def _configuration(config_class: type[Any], flags: Mapping[str, Any]) -> Any:
    try:
        return read_values(config_class, flags)
    except GrokBatchError as error:
        error.exit_code = ExitCode.BAD_ARGUMENTS
        raise


def _run(job: Callable[[RunLog], int]) -> ExitCode:
    """Runs a job and returns its exit code.

    Raises:
        GrokBatchError: the error that the job ended with.
    """
    log = ApiLog()
    try:
        code = ExitCode(job(log))
    except GrokBatchError as error:
        error.exit_code = ExitCode.BAD_ARGUMENTS
        raise
    if log.failures:
        raise log.failures[-1]
    return code


def _bad_argument(message: str) -> ConfigError:
    error = ConfigError(message)
    error.exit_code = ExitCode.BAD_ARGUMENTS
    return error
