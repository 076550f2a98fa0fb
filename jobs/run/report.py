"""Writes report.json and report.html of a run into its folder, however the run ended."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from actors.protocol.errors import ClusterLostError, GrokBatchError
from actors.protocol.plain_text import plain_message
from jobs.run.description import run_description
from jobs.run.plan import Plan
from jobs.run.reuse.copying import ReuseFigures
from pipeline import storage
from pipeline.errors import ErrorBudgetError, InterruptedRunError, OutageError
from pipeline.monitoring.length_bins import histogram
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.output.part_counts import count_parts
from pipeline.output.run_folder import RunFolder

Render = Callable[[Mapping[str, Any]], str]

RUN_KEYS = ("config", "versions", "git_commit")  # of run.json, in report.json too
FINAL_STATUSES = ("complete", "row_errors", "enough", "over_budget")
LOST_REPORT = (
    "The driver that computed the last rows ended before it wrote its report. Rows, tokens and "
    "errors are counted from the output; times, rates and replicas are not known."
)
INTERRUPTIONS = (InterruptedRunError, ClusterLostError, KeyboardInterrupt)
# Of `report_url`: I and N of the partition, if there are several.
REPORT_NAME = re.compile(r"report(?:-(\d+)-of-(\d+))?\.json")


def report_url(folder: RunFolder, plan: Plan, extension: str) -> str:
    """Returns the URL of this partition's report; `extension` is `json` or `html`."""
    index, count = plan.config.partition_pair()
    name = "report"
    if count > 1:
        name = f"report-{index}-of-{count}"
    return storage.join(folder.url, f"{name}.{extension}")


def render_report(report: Mapping[str, Any]) -> str:
    """Returns the HTML page of a report."""
    # Imported here because the plotting library takes a second to import.
    from pipeline.report.run_report import render

    return render(report)


@contextlib.contextmanager
def reported(
    progress: Progress,
    plan: Plan,
    folder: RunFolder,
    identity: str,
    shards: int,
    log: RunLog,
    render: Render = render_report,
    reuse: ReuseFigures | None = None,
) -> Iterator[None]:
    """Writes the report at the end of the block, also after an error.

    The error of the block is the one that is raised: where it cannot be written either, such as on
    a full disk, the report is missing and a warning is logged.

    Args:
        progress: figures of the run.
        plan: the run.
        folder: run folder.
        identity: fingerprint of the run.
        shards: number of shards that this driver has to run.
        log: of the run.
        render: returns the HTML page of the figures.
        reuse: rows that were copied from older runs; None: the run has none.
    """

    def report(error: BaseException | None) -> dict[str, Any]:
        figures = {
            **ending(progress, error),
            "run": _run_keys(plan, identity, shards),
            **progress.report(plan.tokenizer),
        }
        if reuse is not None:
            figures["reuse"] = reuse.as_json()
        return figures

    try:
        yield
    except BaseException as error:
        run_folder = folder
        if isinstance(error, OutageError):  # storage has been retried for minutes already
            run_folder = RunFolder(folder.url, storage.DEFAULT_CLIENT)
        try:
            _write(report(error), run_folder, plan, render)
        except GrokBatchError as report_error:
            message = f"warning: the report could not be written either: {report_error}"
            log.event("report_missing", message, level="warning")
        raise
    _write(report(None), folder, plan, render)


def complete_report(
    plan: Plan, folder: RunFolder, identity: str, status: str, render: Render = render_report
) -> None:
    """Writes the report of a partition whose shards are all committed, if it is missing.

    A driver that is killed between its last commit and its report leaves none, half of one, or that
    of an earlier driver. Times and replicas of that driver are lost; rows, tokens and errors are
    counted from the parts.

    Args:
        plan: the run.
        folder: run folder.
        identity: fingerprint of the run.
        status: how the run ended, as in `ending`.
        render: returns the HTML page of the figures.
    """
    stored = _stored_report(folder, plan)
    if stored is None or stored.get("status") not in FINAL_STATUSES:
        _write(_report_of_parts(plan, folder, identity, status), folder, plan, render)
    elif folder.client.stat(report_url(folder, plan, "html")) is None:
        _write_page(stored, folder, plan, render)


def _stored_report(folder: RunFolder, plan: Plan) -> dict[str, Any] | None:
    """Returns report.json; None if there is none that can be read."""
    url = report_url(folder, plan, "json")
    if folder.client.stat(url) is None:
        return None
    try:
        report = json.loads(folder.client.read(url)[0])
    except ValueError:
        return None
    if not isinstance(report, dict):
        return None
    return report


def _report_of_parts(plan: Plan, folder: RunFolder, identity: str, status: str) -> dict[str, Any]:
    numbers = [shard.number for shard in plan.own_shards]
    counts = count_parts(folder, numbers, identity)
    rows = plan.own_row_count
    report: dict[str, Any] = {
        "status": status,
        "message": LOST_REPORT,
        "run": _run_keys(plan, identity, len(numbers)),
        **Progress(rows).report(),
    }
    report["rows"] = {
        "total": rows,
        "answered": rows,
        "failed": counts.failed_rows,
        "shards_committed": len(numbers),
    }
    report["tokens"] = {
        "prompt": counts.prompt_tokens,
        "completion": counts.completion_tokens,
        "cached": counts.cached_tokens,
    }
    report["errors_by_code"] = dict(counts.errors.most_common())
    report["error_examples"] = counts.examples
    report["prompt_length_histogram"] = histogram(counts.prompt_lengths)
    report["completion_length_histogram"] = histogram(counts.completion_lengths)
    report["finish_reasons"] = dict(counts.finish_reasons.most_common())
    report["logprob_histogram"] = counts.logprobs.histogram()
    return report


def _write(report: dict[str, Any], folder: RunFolder, plan: Plan, render: Render) -> None:
    """Writes the figures first, so that they are kept if a plot fails."""
    figures = json.dumps(report, indent=2) + "\n"
    folder.client.overwrite(report_url(folder, plan, "json"), figures.encode())
    _write_page(report, folder, plan, render)


def _write_page(report: dict[str, Any], folder: RunFolder, plan: Plan, render: Render) -> None:
    page = render(report).encode(errors="backslashreplace")  # file names may be no text
    folder.client.overwrite(report_url(folder, plan, "html"), page)


def ending(progress: Progress, error: BaseException | None) -> dict[str, str | None]:
    """Returns how a run ended, `status`, and why it did not end well, `message`."""
    if error is not None:
        return {"status": _error_status(error), "message": _error_message(error)}
    if progress.over_budget:
        return {"status": "over_budget", "message": progress.budget_message()}
    if progress.ended_early:
        return {"status": "enough", "message": None}
    if progress.error_rows:
        return {"status": "row_errors", "message": None}
    return {"status": "complete", "message": None}


def _error_status(error: BaseException) -> str:
    if isinstance(error, ErrorBudgetError):
        return "over_budget"
    if isinstance(error, INTERRUPTIONS):
        return "interrupted"
    return "failed"


def _error_message(error: BaseException) -> str:
    message = str(error)
    if not isinstance(error, GrokBatchError):
        message = f"{type(error).__name__}: {message}"
    return plain_message(message)


def _run_keys(plan: Plan, identity: str, shards: int) -> dict[str, Any]:
    """Returns the description of the run as in run.json, without the listing of the input."""
    description = run_description(plan)
    return {
        "fingerprint": identity,
        **{name: description[name] for name in RUN_KEYS},
        "shards": {"own": len(plan.own_shards), "to_do": shards},
    }
