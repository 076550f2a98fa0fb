"""api.py: the jobs as functions, on fake replicas: results, errors and their exit codes."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import grok_batch
from jobs.cli.exit_codes import ExitCode
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO

BACKEND = FakeBackend(draws_plots=False)
PROMPTS = DEMO / "prompts.parquet"
FLAGS: dict[str, Any] = {"model": "demo", "max_tokens": 4, "limit": 20, "backend": BACKEND}


def test_score_returns_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = grok_batch.score(PROMPTS, tmp_path / "run", **FLAGS)
    assert run.exit_code is ExitCode.OK
    assert run.table().num_rows == 20
    assert run.errors().num_rows == 0
    assert run.report["rows"]["answered"] == 20
    assert capsys.readouterr().out == "", "results are returned, not printed"
    assert grok_batch.score(PROMPTS, tmp_path / "run", **FLAGS).exit_code is ExitCode.OK


@pytest.mark.parametrize(
    ("flags", "error_class", "message"),
    [
        ({"max_token": 3}, grok_batch.ConfigError, "did you mean max_tokens"),
        ({"max_tokens": "many"}, grok_batch.ConfigError, "--max-tokens: expected int, got many"),
        ({"temperature": -1}, grok_batch.ConfigError, "--temperature: expected a number from 0"),
        ({"input": "nowhere.parquet"}, grok_batch.DatasetError, "no input at nowhere.parquet"),
        ({"dry_run": True}, grok_batch.ConfigError, "use grok_batch.plan"),
    ],
)
def test_wrong_arguments_are_exceptions_with_the_exit_code(
    flags: dict[str, Any],
    error_class: type[grok_batch.GrokBatchError],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error_class) as raised:
        grok_batch.score(**{"input": PROMPTS, "output": tmp_path / "run", **FLAGS, **flags})
    assert message in str(raised.value)
    assert raised.value.exit_code == ExitCode.BAD_ARGUMENTS


def test_row_errors_are_results_up_to_the_budget(tmp_path: Path) -> None:
    ids = pa.array([None, *[[5, 6]] * 9], pa.list_(pa.int32()))
    pq.write_table(pa.table({"prompt_token_ids": ids}), tmp_path / "in.parquet")
    flags = FLAGS | {"max_len": 32}
    run = grok_batch.score(tmp_path / "in.parquet", tmp_path / "run", **flags)
    assert run.exit_code is ExitCode.ROW_ERRORS
    assert run.errors()["error_code"].to_pylist() == ["missing_prompt"]

    with pytest.raises(grok_batch.ErrorBudgetError, match="1 of 10 rows failed") as raised:
        grok_batch.score(tmp_path / "in.parquet", tmp_path / "strict", **flags, max_error_rate=0.0)
    assert raised.value.exit_code == ExitCode.OVER_BUDGET
    assert grok_batch.Run(str(tmp_path / "strict")).table().num_rows == 10


def test_interrupt_is_an_exception_and_the_call_continues(tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    flags = FLAGS | {"backend": FakeBackend(draws_plots=False, before_run=interrupt)}
    with pytest.raises(grok_batch.InterruptedRunError) as raised:
        grok_batch.score(PROMPTS, tmp_path / "run", **flags)
    assert raised.value.exit_code == ExitCode.INTERRUPTED
    assert grok_batch.score(PROMPTS, tmp_path / "run", **FLAGS).table().num_rows == 20


def test_score_runs_outside_the_main_thread(tmp_path: Path) -> None:
    runs: list[grok_batch.Run] = []

    def work() -> None:
        runs.append(grok_batch.score(PROMPTS, tmp_path / "run", **FLAGS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [run.exit_code for run in runs] == [ExitCode.OK]


def test_evaluate_returns_metrics_and_runs(tmp_path: Path) -> None:
    evaluation = grok_batch.evaluate(
        "demo", tmp_path / "evaluation", model="demo", limit=4, backend=BACKEND
    )
    assert evaluation.exit_code is ExitCode.OK
    assert evaluation.metrics["demo"]["acc,none"] == 0.0
    assert {task: run.table().num_rows for task, run in evaluation.runs.items()} == {
        "score": 4,
        "generate": 4,
    }
    with pytest.raises(grok_batch.GrokBatchError) as raised:
        grok_batch.evaluate("demos", tmp_path / "other", model="demo", backend=BACKEND)
    assert raised.value.exit_code == ExitCode.BAD_ARGUMENTS


def test_generate_returns_its_data_set(tmp_path: Path) -> None:
    seeds = pa.table({"id": ["a", "b"], "word": ["one", "two"], "topic": ["x", "y"]})
    pq.write_table(seeds, tmp_path / "seeds.parquet")
    dataset = grok_batch.generate(
        tmp_path / "seeds.parquet",
        {"plain": "Say {{ word }}"},
        tmp_path / "out",
        model="demo",
        max_tokens=4,
        target_rows=9,
        partition_by=["topic"],
        backend=BACKEND,
    )
    assert dataset.exit_code is ExitCode.TOO_FEW_ROWS
    assert sorted(dataset.table()["topic"].to_pylist()) == ["x", "y"]
    assert dataset.statistics["accepted"] == 2
    assert dataset.card.startswith("---")
    assert dataset.run.table().num_rows == 2


def test_plan_returns_the_machines() -> None:
    plan = grok_batch.plan(rows=1000, prompt_tokens=80, completion_tokens=20, gpu="h100")
    assert plan["rows"] == 1000
    assert plan["machines"]
    with pytest.raises(grok_batch.ConfigError, match="--gpu: expected one of"):
        grok_batch.plan(rows=1000, prompt_tokens=80, gpu="h1000")
