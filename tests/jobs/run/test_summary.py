import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.row_table import CELL_CHARS
from jobs.run.plan import Plan
from jobs.run.summary import MAX_ROWS, next_commands, print_results
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from tests.jobs.run.plans import PROMPT, demo_plan
from tests.pipeline.monitoring.test_snapshot import SNAPSHOT as NO_REASONS

SNAPSHOT = replace(
    NO_REASONS, cost=1.5, finish_reasons={"length": 1, "stop": 3}, codes={"empty_prompt": 2}
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("COLUMNS", "200")
    plan = demo_plan(tmp_path, [PROMPT] * 8, shard_rows=4)
    rows = MAX_ROWS + 1
    table = pa.table(
        {
            "id": [f"row {number}" for number in range(rows)],
            "text": ["  spaces show", *["x" * 2 * CELL_CHARS] * (rows - 1)],
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

    print_results(folder, plan, plan.own_shards, 3, None, RunLog())

    printed = capsys.readouterr().out
    assert f"results  {folder.data_url} (2 files, 8 rows, 3 failed)" in printed
    assert f"report   {tmp_path}/out/report.html" in printed
    assert "first rows of part-00000.parquet" in printed
    assert f" row {MAX_ROWS - 1} " in printed
    assert f" row {MAX_ROWS} " not in printed


def test_summary_formats_cells_and_omits_empty_columns(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(RunFolder(str(tmp_path / "out")), plan, plan.own_shards, 0, None, RunLog())

    printed = capsys.readouterr().out
    assert "'  spaces show'" in printed
    assert "[-1.234, -5]" in printed
    assert "[4, 1]" in printed
    assert "error_code" not in printed
    assert "unlisted" not in printed


def test_summary_in_json_is_one_event_without_rows(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    log = RunLog("json", stream=stream)

    print_results(RunFolder(str(tmp_path / "out")), plan, plan.own_shards, 3, SNAPSHOT, log)

    [line] = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["files"], event["rows"], event["failed"]) == ("results", 2, 8, 3)
    assert (event["tokens_in"], event["finish_reasons"]) == (4000, {"length": 1, "stop": 3})
    assert capsys.readouterr().out == ""


def test_summary_without_committed_shards_prints_no_rows(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(RunFolder(str(tmp_path / "out")), plan, [], 0, None, RunLog())

    printed = capsys.readouterr().out
    assert "(0 files, 0 rows, 0 failed)" in printed
    assert "first rows" not in printed


def test_summary_has_figures_and_next_commands(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_results(RunFolder(str(tmp_path / "out")), plan, plan.own_shards, 2, SNAPSHOT, RunLog())

    printed = capsys.readouterr().out
    for line in (
        "tokens   in 4,000 (0% reused), out 100",
        "tokens/s in 400, out 10",
        "finished by stop 3, length 1",
        "errors   empty_prompt 2",
        "cost     1.50 for 0.50 replica-hours",
    ):
        assert f"{line}\n" in printed
    for command in ("show", "compare", "status"):
        assert f" {command} {tmp_path}/out" in printed


def test_next_commands_begin_with_failed_rows() -> None:
    commands = next_commands("runs/my run", failed=3)
    assert "show 'runs/my run' --errors" in commands[0]
    assert "--retry-failed" in commands[-1]
    assert not any("--retry-failed" in line for line in next_commands("runs/a", failed=0))
