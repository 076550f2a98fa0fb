"""Check of the request rows before replicas start: which of them cannot run, whatever a model does.

Rows pass the stages that come before dispatch in a run. A prompt that is too long is found in
seconds, and not after hours of computing its neighbours.
"""

from dataclasses import dataclass

from actors.protocol.messages import Completion
from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.input.reader import read_rows
from pipeline.monitoring.row_counts import allowed_failures
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from pipeline.records import UnreadableShard
from pipeline.requests.tokenize import to_requests
from pipeline.storage.redaction import redact_credentials


@dataclass(frozen=True, slots=True)
class FailingRows:
    """Rows that cannot run."""

    count: int
    first: str  # id and error of the first one


def check_rows(config: ScoreConfig, log: RunLog) -> None:
    """Checks the rows of a run, unless it is finished, and logs how many will fail.

    Raises:
        ConfigError: more rows will fail than --max-error-rate allows.
        DatasetError: the rows cannot be read.
    """
    if storage.stat(RunFolder(str(config.output)).success_url) is not None:
        return
    plan = make_plan(config)
    failing = failing_rows(plan)
    if not failing.count:
        return

    rows = plan.own_row_count
    summary = (
        f"{failing.count:,} of {rows:,} requests in {redact_credentials(str(config.input))} cannot "
        f"run, the first one {failing.first}"
    )
    budget = allowed_failures(rows, config.max_error_rate)
    if failing.count > budget:
        raise ConfigError(
            f"{summary}; --max-error-rate allows {budget:,}, so nothing was started: correct this, "
            "or raise --max-error-rate to count them as wrong"
        )
    log.event(
        "failing_rows",
        f"warning: {summary}; they will be written as errors and count as wrong",
        level="warning",
        rows=failing.count,
    )


def failing_rows(plan: Plan) -> FailingRows:
    """Returns the rows that fail before they reach a replica.

    Raises:
        DatasetError: the rows cannot be read.
    """
    count = 0
    first = ""
    rows = read_rows(plan.own_shards, plan.schema)
    for item in to_requests(rows, plan.task, plan.tokenizer, plan.rules):
        if isinstance(item, UnreadableShard):
            raise item.error
        if not isinstance(item, Completion):
            continue
        if not count:
            first = f"(id {item.row_id}): {item.error_message}"
        count += 1
    return FailingRows(count, first)
