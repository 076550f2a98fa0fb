"""How a run went → report.json and report.html in its folder, however it ended.

What they say is built in pipeline/.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from actors.protocol.errors import ClusterLostError, GrokBatchError
from jobs.run.plan import Plan, run_description
from pipeline import storage
from pipeline.errors import ErrorBudgetError, InterruptedRunError
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder
from pipeline.storage.redaction import redact_credentials


def report_url(folder: RunFolder, plan: Plan, kind: str) -> str:
    """Returns where this partition's report is; `kind` is `json` or `html`."""
    index, count = plan.config.partition_pair()
    return storage.join(
        folder.url, f"report.{kind}" if count == 1 else f"report-{index}-of-{count}.{kind}"
    )


@contextlib.contextmanager
def reported(
    progress: Progress, plan: Plan, folder: RunFolder, identity: str, shards: int
) -> Iterator[None]:
    """Writes the report at the end of the block, whether it ended well or not.

    `shards`: those this driver has to run.
    """
    ended: BaseException | None = None
    try:
        yield
    except BaseException as error:
        ended = error
        raise
    finally:
        _write(
            {**ending(progress, ended), "run": _run(plan, identity, shards), **progress.report()},
            folder,
            plan,
        )


def _write(report: dict[str, Any], folder: RunFolder, plan: Plan) -> None:
    """Writes the numbers first: a picture that cannot be drawn must not cost them."""
    folder.client.overwrite(
        report_url(folder, plan, "json"), (json.dumps(report, indent=2) + "\n").encode()
    )
    # only now: the plotting library takes a second to import
    from pipeline.report.run_report import render

    folder.client.overwrite(report_url(folder, plan, "html"), render(report).encode())


def ending(progress: Progress, error: BaseException | None) -> dict[str, str | None]:
    """Returns how a run ended, `status`, and why it did not end well, `message`."""
    if error is None and progress.over_budget:
        return {"status": "over_budget", "message": progress.budget_message()}
    if error is None and progress.ended_early:
        return {"status": "enough", "message": None}
    if error is None:
        return {"status": "row_errors" if progress.error_rows else "complete", "message": None}
    interruptions = (InterruptedRunError, ClusterLostError, KeyboardInterrupt)
    kinds = ((ErrorBudgetError, "over_budget"), (interruptions, "interrupted"))
    status = next((status for kind, status in kinds if isinstance(error, kind)), "failed")
    message = (
        str(error) if isinstance(error, GrokBatchError) else f"{type(error).__name__}: {error}"
    )
    return {"status": status, "message": redact_credentials(message)}


def _run(plan: Plan, identity: str, shards: int) -> dict[str, Any]:
    """What was run, as run.json tells it, without the listing of the input."""
    told = run_description(plan)
    own = len(plan.own_shards)
    return {
        "fingerprint": identity,
        **{name: told[name] for name in ("config", "versions", "git_commit")},
        "shards": {"own": own, "to_do": shards},
    }
