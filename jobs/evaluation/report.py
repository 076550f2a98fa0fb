"""Output rows of any run over request rows → metrics.json, samples.parquet and report.html, a line in history, an exit code."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.cli.exit_codes import ExitCode
from jobs.evaluation.config import EvaluateConfig
from jobs.run.metrics import run_label
from pipeline import storage
from pipeline.evals import scoring
from pipeline.evals.answers import list_outputs, read_answers
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.execution.sandbox import Sandbox
from pipeline.evals.history import History, run_identity
from pipeline.evals.requests import asked_names, read_requests
from pipeline.evals.suite import EvalRequest
from pipeline.monitoring.run_log import RunLog
from pipeline.output.publication import to_parquet
from pipeline.storage import StoredObject
from pipeline.storage.redaction import redact_credentials


def make_report(
    config: EvaluateConfig, requests_url: str, outputs: Sequence[str], folder: str
) -> ExitCode:
    """Judges a run, writes what is found into `folder`, adds it to history and returns the exit code.

    Raises:
        DatasetError: requests, outputs or history cannot be read, or do not belong together.
        ConfigError: programs are to be executed, and this machine cannot confine them.
    """
    requests, files = read_requests(requests_url), list_outputs(outputs)
    answers = read_answers(requests, files)
    if config.execute_programs:
        answers = scoring.executed(requests, answers, Sandbox(config.program_timeout_s).run)
    history = History.load(config.history)
    info = _run_info(config, requests, files, history)
    evaluation = evaluate(
        requests, asked_names(requests_url, requests), answers, info, history, config.rules()
    )
    _write(evaluation, config, {"Requests": requests_url, "Output": ", ".join(outputs)}, folder)
    history.add(evaluation.entries, evaluation.samples)
    _tell(evaluation, folder, RunLog(config.log_format, run=run_label(folder)))
    if evaluation.regressions:
        return ExitCode.REGRESSION
    return ExitCode.ROW_ERRORS if evaluation.failed else ExitCode.OK


def _run_info(
    config: EvaluateConfig,
    requests: Sequence[EvalRequest],
    files: Sequence[StoredObject],
    history: History,
) -> RunInfo:
    documents = scoring.common_digest(scoring.document_digests(requests).values())
    run = run_identity(documents, files, config.name)
    made = _run_json(files)
    told = made.get("config", {})
    at = history.began(run) or datetime.now(UTC)
    return RunInfo(
        run, at, config.name, told.get("model"), told.get("checkpoint"), made.get("git_commit")
    )


def _run_json(files: Sequence[StoredObject]) -> dict[str, Any]:
    """Returns the run.json beside the first file's folder `data`, where the output is a run folder of the main job."""
    folder, _, inside = files[0].url.rpartition("/data/")
    url = storage.join(folder, "run.json")
    if not folder or "/" in inside or storage.stat(url) is None:
        return {}
    found: dict[str, Any] = json.loads(storage.read(url)[0])
    return found


def _write(
    evaluation: Evaluation, config: EvaluateConfig, where: dict[str, str], folder: str
) -> None:
    """Writes the numbers first: a picture that cannot be drawn must not cost them."""
    metrics = json.dumps(evaluation.metrics(), indent=2, ensure_ascii=False) + "\n"
    storage.overwrite(storage.join(folder, "metrics.json"), metrics.encode())
    storage.overwrite(
        storage.join(folder, "samples.parquet"), to_parquet(scoring.to_table(evaluation.samples))
    )
    # only now: the plotting library takes a second to import
    from pipeline.evals.report.page import render

    storage.overwrite(
        storage.join(folder, "report.html"), render(evaluation, config.rules(), where).encode()
    )


def _tell(evaluation: Evaluation, folder: str, log: RunLog) -> None:
    for entry in evaluation.headlines:
        error = "" if entry.stderr is None else f" ± {entry.stderr:.4f}"
        message = f"{entry.task:<12} {entry.metric:<28} {entry.value:.4f}{error}  ({entry.count:,} documents)"
        log.result(
            "metric",
            message,
            task=entry.task,
            metric=entry.metric,
            value=entry.value,
            stderr=entry.stderr,
        )
    for each in evaluation.comparisons:
        found = each.difference
        verdict = "REGRESSION" if found.regression else "ok"
        message = (
            f"{each.now.task:<12} {each.now.metric:<28} {found.value:+.4f} [{found.low:+.4f}, "
            f"{found.high:+.4f}] against the "
            f"{each.against} run {each.before.name or each.before.run}: {verdict}"
        )
        log.result(
            "comparison",
            message,
            task=each.now.task,
            metric=each.now.metric,
            regression=found.regression,
        )
    if evaluation.failed:
        log.result(
            "failed_rows",
            f"{evaluation.failed:,} rows failed; their documents count as wrong",
            rows=evaluation.failed,
        )
    log.result("metrics", f"metrics  {redact_credentials(storage.join(folder, 'metrics.json'))}")
    log.result("report", f"report   {redact_credentials(storage.join(folder, 'report.html'))}")
