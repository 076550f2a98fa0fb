from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluation.row_check import check_rows, failing_rows
from jobs.run.config import ScoreConfig
from jobs.run.plan import make_plan
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

PROMPTS = ["1 + 1 =", "2 + 2 = " * 40, None, "3 + 3 =", "4 + 4 ="]


def config(folder: Path, max_error_rate: float) -> ScoreConfig:
    """A run with one prompt that is too long and one that is null."""
    path = folder / "requests.parquet"
    ids = [f"sums/{number}" for number in range(len(PROMPTS))]
    pq.write_table(pa.table({"id": ids, "prompt": PROMPTS}), path)
    return ScoreConfig(
        input=str(path),
        output=str(folder / "run"),
        model="demo",
        max_tokens=4,
        max_len=32,
        max_error_rate=max_error_rate,
    )


def test_failing_rows_are_counted_without_a_replica(tmp_path: Path) -> None:
    failing = failing_rows(make_plan(config(tmp_path, 0.5)))
    assert failing.count == 2
    assert failing.first.startswith("(id sums/1): prompt: expected at most 28 tokens")


def test_failing_rows_within_the_budget_are_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_rows(config(tmp_path, 0.5), RunLog("text", run="run"))
    printed = capsys.readouterr()
    assert "2 of 5 requests" in printed.out + printed.err


def test_failing_rows_beyond_the_budget_stop_a_run_that_is_not_finished(tmp_path: Path) -> None:
    run = config(tmp_path, 0.0)
    with pytest.raises(ConfigError, match="--max-error-rate allows 0, so nothing was started"):
        check_rows(run, RunLog("text", run="run"))

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "_SUCCESS").touch()
    check_rows(run, RunLog("text", run="run"))
