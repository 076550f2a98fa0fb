import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.run.plan import Plan
from jobs.run.summary import MAX_CHARS, MAX_ROWS, print_results
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from tests.jobs.run.plans import PROMPT, demo_plan


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("COLUMNS", "200")
    plan = demo_plan(tmp_path, [PROMPT] * 8, shard_rows=4)
    rows = MAX_ROWS + 1
    table = pa.table(
        {
            "id": [f"row {number}" for number in range(rows)],
            "text": ["  spaces show", *["x" * 2 * MAX_CHARS] * (rows - 1)],
            "loglikelihood": [[-1.234, -5.0]] * rows,
            "scored_tokens": pa.array([[4, 1]] * rows, pa.list_(pa.int32())),
            "error_code": pa.array([None] * rows, pa.string()),
            "unlisted": [1] * rows,
        }
    )
    (tmp_path / "out" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "out" / "data" / "part-00000.parquet")
    return plan


def test_summary_prints_counts_and_first_rows(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(str(tmp_path / "out"))

    print_results(folder, plan, plan.own_shards, failed=3, log=RunLog())

    printed = capsys.readouterr().out
    assert f"results  {folder.data_url} (2 files, 8 rows, 3 failed)" in printed
    assert f"report   {tmp_path}/out/report.html" in printed
    assert "first rows of part-00000.parquet" in printed
    assert f"'row {MAX_ROWS - 1}'" in printed
    assert f"'row {MAX_ROWS}'" not in printed


def test_summary_formats_cells_and_omits_empty_columns(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(RunFolder(str(tmp_path / "out")), plan, plan.own_shards, 0, RunLog())

    printed = capsys.readouterr().out
    assert "'  spaces show'" in printed
    assert "'" + "x" * (MAX_CHARS - 2) + "…" in printed
    assert "x" * (MAX_CHARS - 1) not in printed
    assert "-1.23, -5.00" in printed
    assert " 4, 1 " in printed
    assert "error_code" not in printed
    assert "unlisted" not in printed


def test_summary_in_json_is_one_event_without_rows(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    log = RunLog("json", stream=stream)

    print_results(RunFolder(str(tmp_path / "out")), plan, plan.own_shards, 3, log)

    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["files"], event["rows"], event["failed"]) == ("results", 2, 8, 3)
    assert capsys.readouterr().out == ""


def test_summary_without_committed_shards_prints_no_rows(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(RunFolder(str(tmp_path / "out")), plan, [], 0, RunLog())

    printed = capsys.readouterr().out
    assert "(0 files, 0 rows, 0 failed)" in printed
    assert "first rows" not in printed
