"""Writes report.json and report.html of a run into its folder, however the run ended."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from actors.protocol.errors import ClusterLostError, GrokBatchError
from jobs.run.description import run_description
from jobs.run.plan import Plan
from pipeline import storage
from pipeline.errors import ErrorBudgetError, InterruptedRunError
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.storage.redaction import redact_credentials

RUN_KEYS = ("config", "versions", "git_commit")  # of run.json, in report.json too
INTERRUPTIONS = (InterruptedRunError, ClusterLostError, KeyboardInterrupt)


def report_url(folder: RunFolder, plan: Plan, extension: str) -> str:
    """Returns the URL of this partition's report; `extension` is `json` or `html`."""
    index, count = plan.config.partition_pair()
    name = "report"
    if count > 1:
        name = f"report-{index}-of-{count}"
    return storage.join(folder.url, f"{name}.{extension}")


@contextlib.contextmanager
def reported(
    progress: Progress, plan: Plan, folder: RunFolder, identity: str, shards: int
) -> Iterator[None]:
    """Writes the report at the end of the block, also after an error.

    Args:
        progress: figures of the run.
        plan: the run.
        folder: run folder.
        identity: fingerprint of the run.
        shards: number of shards that this driver has to run.
    """
    run_error: BaseException | None = None
    try:
        yield
    except BaseException as error:
        run_error = error
        raise
    finally:
        report = {
            **ending(progress, run_error),
            "run": _run_keys(plan, identity, shards),
            **progress.report(),
        }
        _write(report, folder, plan)


def _write(report: dict[str, Any], folder: RunFolder, plan: Plan) -> None:
    """Writes the figures first, so that they are kept if a plot fails."""
    figures = json.dumps(report, indent=2) + "\n"
    folder.client.overwrite(report_url(folder, plan, "json"), figures.encode())

    # Imported here because the plotting library takes a second to import.
    from pipeline.report.run_report import render

    folder.client.overwrite(report_url(folder, plan, "html"), render(report).encode())


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
    return redact_credentials(message)


def _run_keys(plan: Plan, identity: str, shards: int) -> dict[str, Any]:
    """Returns the description of the run as in run.json, without the listing of the input."""
    description = run_description(plan)
    return {
        "fingerprint": identity,
        **{name: description[name] for name in RUN_KEYS},
        "shards": {"own": len(plan.own_shards), "to_do": shards},
    }
