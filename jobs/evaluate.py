"""Evaluates a model on data sets and compares its metrics with earlier runs.

    python jobs/evaluate.py --demo                               # try it, without data and weights
    python jobs/evaluate.py -C nightly.yaml [--flag value …]     # all three steps
    python jobs/evaluate.py prompts --tasks mmlu,gsm8k_cot --data URL -o requests.parquet
    python jobs/evaluate.py run --requests requests.parquet -o RUN [flags of the model]
    python jobs/evaluate.py report --requests requests.parquet --outputs URL -o DIR [--history URL]

Exit codes are those of jobs/score_dataset.py, and 5: a metric is significantly worse than in the
last or the best run.

Rows run through the main job, as two runs in two folders: one scores choices, one generates text.
The same command continues an interrupted evaluation.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import read_deadline
from jobs.cli.parser import parse
from jobs.evaluation.config import DEMO_DTYPES, EvaluateConfig, Step
from jobs.evaluation.demo_table import demo_table
from jobs.evaluation.report import make_report
from jobs.evaluation.row_check import check_rows
from jobs.run.backend import RAY, Backend, one_cluster
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from jobs.run.metrics import run_label
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.evaluation import METRICS, REQUESTS
from pipeline.evals.history import History
from pipeline.evals.requests import build_requests, parts, read_requests, to_table
from pipeline.monitoring.live_view import showing
from pipeline.monitoring.run_log import RunLog
from pipeline.output.publication import publish_once, to_parquet
from pipeline.storage.redaction import redact_credentials

STEPS: tuple[Step, ...] = ("prompts", "run", "report")
MAX_LISTED_TASKS = 7  # with their numbers of rows, in a message
DESCRIPTION = (
    "Evaluation: data sets, request rows, completions, metrics, compared with earlier runs. Steps: "
    "prompts (data sets to request rows), run (request rows to output rows, as the main job does), "
    "report (output rows to metrics, history and report.html); without a step all three. --demo "
    "needs no data and no weights. The worked examples of gsm8k_cot and bbh_cot_fewshot come from "
    "{gsm8k,bbh}/cot_shots.jsonl below --data; jobs/evaluate_cot_shots.py writes these files. More "
    "in docs/evaluation.md."
)


def main(arguments: Sequence[str], backend: Backend = RAY, *, program: str = "evaluate.py") -> int:
    """Runs the steps of a command line and returns the exit code."""
    step: Step = next((name for name in STEPS if name in arguments[:1]), "all")
    log = RunLog()
    try:
        flags = arguments if step == "all" else arguments[1:]
        config = parse(
            EvaluateConfig,
            flags,
            program=f"{program} [{'|'.join(STEPS)}]",
            description=DESCRIPTION,
        )
        log = _log(config)
        if config.demo:
            return _demo(step, config, backend, log)
        return run_step(step, config, backend, log)
    except GrokBatchError as error:
        return log.failed(error, ExitCode.BAD_ARGUMENTS)


def run_step(step: Step, config: EvaluateConfig, backend: Backend, log: RunLog) -> int:
    """Runs one step or all of them, and returns the exit code.

    Args:
        step: the step, or `all`.
        config: of the evaluation.
        backend: starts replicas.
        log: receives events, results and known errors of the run.

    Raises:
        GrokBatchError: a flag is missing, or data cannot be used.
    """
    config.require(step)
    output = str(config.output)
    if step == "prompts":
        return write_prompts(config, output, log)
    if step == "run":
        return run_requests(config, str(config.requests), output, backend, log)
    if step == "report":
        with showing("computing metrics", log):
            return make_report(config, str(config.requests), config.outputs, output, log=log)
    return _all_steps(config, output, backend, log)


def _all_steps(config: EvaluateConfig, output: str, backend: Backend, log: RunLog) -> int:
    # an unreadable history fails before hours of computation, not after
    History.load(config.history)
    requests = storage.join(output, REQUESTS)
    write_prompts(config, requests, log)
    code = run_requests(config, requests, output, backend, log)
    is_over_budget = code is ExitCode.OVER_BUDGET
    if not code.is_complete and not is_over_budget:
        return code
    outputs = run_outputs(requests, output)
    try:
        with showing("computing metrics", log):
            report_code = make_report(
                config, requests, outputs, output, is_complete=not is_over_budget, log=log
            )
        if is_over_budget:
            return code
        return report_code or code
    except GrokBatchError as error:
        return log.failed(error, ExitCode.FAILED)


def _demo(step: Step, config: EvaluateConfig, backend: Backend, log: RunLog) -> int:
    """Runs both evaluations of --demo over one Ray, and names the report that compares them.

    Raises:
        ConfigError: a step, or a flag that --demo sets, is given.
    """
    if step != "all":
        raise ConfigError(f"--demo runs all steps; leave out {step}")
    folder = config.output or str(Path("runs", time.strftime("evaluate-demo-%Y%m%d-%H%M%S")))
    runs = config.demo_runs(folder)
    log.result(None, f"The demo model answers bundled questions twice: {', '.join(DEMO_DTYPES)}.")
    code: int = ExitCode.OK
    with one_cluster(backend) as demo_backend:
        for number, run in enumerate(runs, start=1):
            message = f"evaluation {number} of {len(runs)}: the demo model in {run.dtype}"
            log.result("demo", message)
            code = run_step("all", run, demo_backend, log.without_results())
            if code not in {ExitCode.OK, ExitCode.REGRESSION}:
                return code

    last = str(runs[-1].output)
    if log.shows_results and not log.is_json:
        metrics = json.loads(storage.read(storage.join(last, METRICS))[0])
        Console().print(demo_table(metrics))
    report = storage.join(last, "report.html")
    log.result(
        "demo_report",
        f"open {redact_credentials(report)}: questions, answers, and float32 against bfloat16",
        report=report,
    )
    return code


def write_prompts(config: EvaluateConfig, url: str, log: RunLog) -> int:
    """Writes the request rows of the tasks to `url`, if they are not there already.

    Raises:
        ConfigError, DatasetError: unknown tasks, damaged data sets, or `url` holds other requests.
    """
    data = DataFolder(str(config.data_url()))
    with showing("building requests", log):
        requests = build_requests(config.task_names(), data, config.prompt_options())
        table = to_table(requests, config.task_names())
        publish_once(url, to_parquet(table), "requests")

    counts = Counter(request.task for request in requests)
    summary = f"{len(counts)} tasks"
    if len(counts) <= MAX_LISTED_TASKS:
        summary = ", ".join(f"{task} {count:,}" for task, count in counts.items())
    message = f"requests {redact_credentials(url)}: {len(requests):,} rows ({summary})"
    log.result("requests", message, rows=len(requests))
    return ExitCode.OK


def run_requests(
    config: EvaluateConfig, requests_url: str, output: str, backend: Backend, log: RunLog
) -> ExitCode:
    """Runs the request rows through the main job, as one run per task of it.

    A run in which too many rows fail does not keep the other one from running.

    Returns:
        The exit code that matters more of both runs.

    Raises:
        ConfigError: more rows than --max-error-rate allows cannot run, whatever the model does.
    """
    config = _with_fixed_deadline(config)
    main_jobs: list[ScoreConfig] = []
    with showing("checking requests", log):
        for job_task, table in parts(to_table(read_requests(requests_url))).items():
            part_url = storage.join(output, f"requests-{job_task}.parquet")
            publish_once(part_url, to_parquet(table), "requests")
            main_job = config.score_config(job_task, part_url, storage.join(output, job_task))
            check_rows(main_job, log)
            main_jobs.append(main_job)

    worst = ExitCode.OK
    folders = [str(main_job.output) for main_job in main_jobs]
    with one_cluster(backend) as shared_backend:
        for main_job in main_jobs:
            others = [folder for folder in folders if folder != main_job.output]
            code = run_job(main_job, shared_backend, log=log, shares_limits_with=others)
            if not code.is_complete and code is not ExitCode.OVER_BUDGET:
                return code
            worst = max(worst, code)
    return worst


def _with_fixed_deadline(config: EvaluateConfig) -> EvaluateConfig:
    """Returns the configuration with its deadline as a time of day, the same for both runs."""
    if config.deadline is None:
        return config
    moment = read_deadline(config.deadline, datetime.now(UTC))
    return dataclasses.replace(config, deadline=moment.isoformat(timespec="seconds"))


def run_outputs(requests_url: str, output: str) -> tuple[str, ...]:
    """Returns the URLs of the output rows of a run over the requests."""
    job_tasks = parts(to_table(read_requests(requests_url)))
    return tuple(storage.join(output, job_task, "data") for job_task in job_tasks)


def _log(config: EvaluateConfig) -> RunLog:
    return RunLog(config.log_format, run=run_label(str(config.output)))


if __name__ == "__main__":
    run_main(main)
