"""The report step: output rows of a run as metrics, samples, report page, history and exit code."""

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
from pipeline.evals.evaluation import (
    JUNIT,
    METRICS,
    SAMPLES,
    SUMMARY,
    Evaluation,
    RunInfo,
    evaluate,
)
from pipeline.evals.execution.sandbox import Sandbox
from pipeline.evals.history import History, run_identity
from pipeline.evals.requests import read_requests, requested_names
from pipeline.evals.suite import EvalRequest
from pipeline.monitoring.run_log import RunLog
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder
from pipeline.storage import StoredObject
from pipeline.storage.redaction import redact_credentials


def make_report(
    config: EvaluateConfig,
    requests_url: str,
    outputs: Sequence[str],
    folder: str,
    *,
    is_complete: bool = True,
    log: RunLog | None = None,
) -> ExitCode:
    """Scores a run, writes its report into `folder`, adds it to history and returns the exit code.

    Args:
        config: flags of the report.
        requests_url: all requests of the run.
        outputs: folders, globs and files with its output.
        folder: of the report.
        is_complete: whether the run came to its end within its error budget. If not, what there is
            is scored, and the run is not added to history.
        log: receives metrics and comparisons; None: one for the command line.

    Raises:
        DatasetError: requests, outputs or history cannot be read, or do not belong together.
        ConfigError: programs are to be executed, and this machine cannot confine them.
    """
    requests = read_requests(requests_url)
    allow_missing = config.allow_missing or not is_complete
    files = list_outputs(outputs, allow_missing=allow_missing)
    answers = read_answers(requests, files, allow_missing=allow_missing)
    if config.execute_programs:
        answers = scoring.executed(requests, answers, Sandbox(config.program_timeout_s).run)

    history = History.load(config.history)
    info = _run_info(config, requests, files, history)
    requested = requested_names(requests_url, requests)
    evaluation = evaluate(requests, requested, answers, info, history, config.rules())

    locations = {"Requests": requests_url, "Output": ", ".join(outputs)}
    _write(evaluation, config, locations, folder)
    log = (log or RunLog(config.log_format)).of_run(run_label(folder))
    if is_complete and not evaluation.missing:
        history.add(evaluation.entries, evaluation.samples)
    else:
        _log_incomplete(evaluation, config, log)
    _log_results(evaluation, folder, log)
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
    run_jsons = _read_run_jsons(files)
    run_json = run_jsons[0]
    run_config = run_json.get("config", {})
    return RunInfo(
        run=run,
        reported_at=history.began(run) or datetime.now(UTC),
        name=config.name,
        model=run_config.get("model"),
        checkpoint=run_config.get("checkpoint"),
        git_commit=run_json.get("git_commit"),
        setup=_setup(run_jsons),
    )


def _read_run_jsons(files: Sequence[StoredObject]) -> list[dict[str, Any]]:
    """Returns run.json of each folder that holds some of the files, in their order.

    Empty for a folder that is no run folder of the main job.
    """
    run_jsons: dict[str, dict[str, Any]] = {}  # by folder
    for file in files:
        folder, _, path = file.url.rpartition("/data/")
        if "/" in path:
            folder = ""
        if folder not in run_jsons:
            run_jsons[folder] = _read_run_json(folder)
    return list(run_jsons.values())


def _read_run_json(folder: str) -> dict[str, Any]:
    url = RunFolder(folder).run_url
    if not folder or storage.stat(url) is None:
        return {}
    run_json: dict[str, Any] = json.loads(storage.read(url)[0])
    return run_json


def _setup(run_jsons: Sequence[dict[str, Any]]) -> str | None:
    """Returns a digest of all that the answers depend on but the documents.

    None without run folders, or if the code of one of them is not known.
    """
    setups = []
    for run_json in run_jsons:
        settings = dict(run_json.get("fingerprint_keys", {}))
        if not settings or run_json.get("git_commit") is None:
            return None
        for key in ("input", "shards"):
            settings.pop(key, None)
        setups.append([settings, run_json.get("versions"), run_json["git_commit"]])
    return scoring.common_digest(json.dumps(setup, sort_keys=True) for setup in setups)


def _write(
    evaluation: Evaluation, config: EvaluateConfig, locations: dict[str, str], folder: str
) -> None:
    """Writes metrics.json, samples.parquet, summary.md, junit.xml and report.html.

    In this order: a failure of the plotting library does not lose the metrics.
    """
    metrics = json.dumps(evaluation.metrics(), indent=2, ensure_ascii=False) + "\n"
    storage.overwrite(storage.join(folder, METRICS), metrics.encode())

    samples = to_parquet(scoring.to_table(evaluation.samples))
    storage.overwrite(storage.join(folder, SAMPLES), samples)

    # only now: the plotting library takes a second to import
    from pipeline.evals.report.page import render
    from pipeline.evals.report.summary import junit, markdown

    report_url = storage.join(folder, "report.html")
    summary = markdown(evaluation, redact_credentials(report_url))
    storage.overwrite(storage.join(folder, SUMMARY), summary.encode())
    storage.overwrite(storage.join(folder, JUNIT), junit(evaluation))
    page = render(evaluation, config.rules(), locations)
    storage.overwrite(report_url, page.encode())


def _log_incomplete(evaluation: Evaluation, config: EvaluateConfig, log: RunLog) -> None:
    requests = len(evaluation.requests)
    message = (
        f"warning: the run is not complete: {evaluation.failed:,} of {requests:,} requests failed, "
        f"{evaluation.missing:,} of them have no output row; the metrics below count them as wrong"
    )
    if config.history is not None:
        message += ", and the run is not added to the history"
    log.event(
        "incomplete",
        message,
        level="warning",
        failed=evaluation.failed,
        missing=evaluation.missing,
    )


def _log_results(evaluation: Evaluation, folder: str, log: RunLog) -> None:
    for entry in evaluation.headlines:
        stderr = "" if entry.stderr is None else f" ± {entry.stderr:.4f}"
        message = (
            f"{entry.task:<12} {entry.metric:<28} {entry.value:.4f}{stderr}  "
            f"({entry.count:,} documents)"
        )
        log.result(
            "metric",
            message,
            task=entry.task,
            metric=entry.metric,
            value=entry.value,
            stderr=entry.stderr,
        )
    for comparison in evaluation.comparisons:
        now = comparison.now
        difference = comparison.difference
        run_before = comparison.before.run_name
        verdict = "REGRESSION" if difference.regression else "ok"
        if comparison.is_same_setup and comparison.changes:
            verdict += f" ({len(comparison.changes):,} flaky documents: the model is the same)"
        message = (
            f"{now.task:<12} {now.metric:<28} {difference.value:+.4f} [{difference.low:+.4f}, "
            f"{difference.high:+.4f}] against the {comparison.against} run {run_before}: {verdict}"
        )
        log.result(
            "comparison",
            message,
            task=now.task,
            metric=now.metric,
            regression=difference.regression,
        )
    if evaluation.failed:
        log.result(
            "failed_rows",
            f"{evaluation.failed:,} rows failed; their documents count as wrong",
            rows=evaluation.failed,
        )
    log.result("metrics", f"metrics  {redact_credentials(storage.join(folder, 'metrics.json'))}")
    log.result("report", f"report   {redact_credentials(storage.join(folder, 'report.html'))}")
