"""runs.py: tables, reports and errors of run folders."""

from pathlib import Path

import pytest

import grok_batch
from grok_batch.runs import Run, to_pandas
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of twelve rows in three parts."""
    return grok_batch.score(
        DEMO / "prompts.parquet",
        tmp_path_factory.mktemp("run") / "run",
        model="demo",
        max_tokens=2,
        limit=12,
        shard_rows=4,
        backend=FakeBackend(draws_plots=False),
    )


def test_table_has_all_parts_in_the_order_of_the_input(run: Run) -> None:
    table = run.table(["id", "finish_reason"])
    assert table.column_names == ["id", "finish_reason"]
    assert [row_id.rsplit("/")[-1] for row_id in table["id"].to_pylist()] == [
        str(row) for row in range(12)
    ]


def test_run_of_another_process_is_opened_by_its_url(run: Run) -> None:
    opened = Run(run.url)
    assert opened.exit_code is None
    assert opened.table().equals(run.table())
    assert opened.description["config"]["max_tokens"] == 2
    assert opened.report["status"] == "complete"
    assert opened.report_url.endswith("/report.html")


def test_unknown_column_is_an_error_with_the_others(run: Run) -> None:
    with pytest.raises(grok_batch.DatasetError, match="txt is not a column; there are id, "):
        run.table(["txt"])


def test_folder_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(grok_batch.DatasetError, match="no row is committed yet"):
        Run(str(tmp_path)).table()


class TableWithoutPandas:
    """A table where pandas is not installed."""

    def to_pandas(self) -> object:
        raise ModuleNotFoundError("No module named 'pandas'")


def test_pandas_that_is_missing_is_a_sentence() -> None:
    with pytest.raises(grok_batch.ConfigError, match="pandas is not installed"):
        to_pandas(TableWithoutPandas())  # type: ignore[arg-type]
