import json
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.errors import ModelError
from actors.protocol.messages import Completion, RowRef
from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan
from jobs.run.report import report_url, reported
from pipeline.errors import DatasetError, ErrorBudgetError, InterruptedRunError
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from pipeline.storage.client import Client
from tests.jobs.runs import DEMO


def plan_of(output: Path, **more: Any) -> Plan:
    return make_plan(
        ScoreConfig(
            input=str(DEMO / "prompts.parquet"),
            output=str(output),
            model="demo",
            max_tokens=4,
            **more,
        )
    )


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, "complete", None),
        (ErrorBudgetError("9 of 10 rows failed"), "over_budget", "9 of 10 rows failed"),
        (InterruptedRunError("the run was interrupted"), "interrupted", "the run was interrupted"),
        (ModelError("no replica at s3://key:secret@bucket"), "failed", "no replica at s3://bucket"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt: "),
        (RuntimeError("a fault"), "failed", "RuntimeError: a fault"),
    ],
)
def test_report_is_written_however_the_run_ends(
    error: BaseException | None, status: str, message: str | None, tmp_path: Path
) -> None:
    plan, folder = plan_of(tmp_path), RunFolder(str(tmp_path))

    def run() -> None:
        with reported(Progress(300), plan, folder, "the fingerprint", 1, RunLog()):
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["status"], report["message"]) == (status, message)
    assert report["run"]["fingerprint"] == "the fingerprint"
    assert report["run"]["config"]["max_tokens"] == 4
    assert report["run"]["shards"] == {"own": 1, "to_do": 1}
    page = (tmp_path / "report.html").read_text()
    assert "the fingerprint" in page
    assert (message or "complete") in page
    assert "secret" not in page + (tmp_path / "report.json").read_text()


class FullDisk(Client):
    """Refuses to write reports."""

    def overwrite(self, url: str, data: bytes) -> None:
        raise DatasetError(f"cannot write {url}: no space left on device")


def test_error_of_the_run_comes_before_that_of_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tmp_path)
    folder = RunFolder(str(tmp_path), FullDisk())
    with (
        pytest.raises(DatasetError, match="cannot create part-00003"),
        reported(Progress(300), plan, folder, "x", 1, RunLog()),
    ):
        raise DatasetError("cannot create part-00003: no space left on device")
    assert "the report could not be written either: cannot write" in capsys.readouterr().err

    with (
        pytest.raises(DatasetError, match=r"cannot write .*report\.json"),
        reported(Progress(300), plan, folder, "x", 1, RunLog()),
    ):
        pass


def test_error_rows_show_in_the_status(tmp_path: Path) -> None:
    plan, folder = plan_of(tmp_path), RunFolder(str(tmp_path))
    for budget, status in ((1, "row_errors"), (0, "over_budget")):
        progress = Progress(300, max_error_rows=budget)
        with reported(progress, plan, folder, "x", 1, RunLog()):
            list(progress.count([Completion.failed(RowRef(0, 0), "empty_prompt", "is empty")]))
        assert json.loads((tmp_path / "report.json").read_text())["status"] == status


def test_partitions_have_reports_of_their_own(tmp_path: Path) -> None:
    plan, folder = plan_of(tmp_path, partition="1/3"), RunFolder("s3://bucket/run")
    assert report_url(folder, plan, "html") == "s3://bucket/run/report-1-of-3.html"
    assert report_url(folder, plan_of(tmp_path), "json") == "s3://bucket/run/report.json"
