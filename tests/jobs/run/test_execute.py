"""jobs/run/execute.py: exit codes, events and early stops of whole runs on fake replicas."""

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.errors import ClusterLostError, ModelError
from actors.protocol.messages import Request
from jobs.cli.exit_codes import ExitCode
from jobs.cli.signals import stop_at_once
from jobs.cluster.address import ClusterConfigError
from jobs.run.config import ScoreConfig
from jobs.run.description import run_description
from jobs.run.early_stopping import EarlyStopping
from jobs.run.execute import run_job
from jobs.run.fingerprint import fingerprint_keys
from jobs.run.plan import make_plan
from pipeline.errors import ConfigError
from pipeline.output.run_folder import RunFolder, check_run
from pipeline.records import Shard
from pipeline.storage.backend import StoredObject
from pipeline.storage.client import Client
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import report, table

ROWS = 120
SHARDS = 30


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., ScoreConfig]:
    ids = pa.array([[row + 1, 5] for row in range(ROWS)], pa.list_(pa.int32()))
    pq.write_table(pa.table({"prompt_token_ids": ids}), tmp_path / "in.parquet")

    def make(**flags: Any) -> ScoreConfig:
        defaults: dict[str, Any] = {
            "input": str(tmp_path / "in.parquet"),
            "output": str(tmp_path / "out"),
            "model": "demo",
            "max_tokens": 2,
            "max_len": 32,
            "shard_rows": 4,
            "log_format": "json",
        }
        return ScoreConfig(**(defaults | flags))

    return make


def events(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return {line["event"]: line for line in lines}


def test_run_job_commits_all_rows_and_logs_its_events(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    assert table(tmp_path / "out").num_rows == ROWS
    logged = events(capsys)
    started = logged["started"]
    assert (started["shards"], started["shards_committed"]) == (SHARDS, 0)
    assert (logged["results"]["rows"], logged["results"]["failed"]) == (ROWS, 0)
    assert (logged["finished"]["exit_code"], logged["finished"]["level"]) == (0, "info")


@pytest.mark.parametrize("boundary_chars", [False, True])
def test_run_job_scores_tokens_across_the_boundary(
    boundary_chars: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("2 Whi", "ch"), ("2 i", "s"), ("2 i", "s is 7"), ("2 Whic", "h is 7"), ("2 is", " 7")]
    lines = [json.dumps({"prompt": prompt, "continuation": text}) for prompt, text in rows]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    config = ScoreConfig(
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out"),
        model="demo",
        task="score",
        boundary_chars=boundary_chars,
        log_format="json",
    )
    assert run_job(config, FakeBackend()) is ExitCode.OK
    logged = events(capsys)["boundary_rows"]
    assert logged["rows"] == 4
    assert ("in a new run" in logged["message"]) is not boundary_chars

    output = table(tmp_path / "out")
    assert output["scored_tokens"].to_pylist() == [1, 1, 4, 4, 2]
    if boundary_chars:
        assert output["boundary_chars"].to_pylist() == [4, 2, 2, 5, 0]
    else:
        assert "boundary_chars" not in output.column_names
    assert report(tmp_path / "out")["boundary_rows"] == 4


def test_run_job_writes_scored_tokens_and_resumes_failed_rows(tmp_path: Path) -> None:
    choices = [" 5", " five apples"]
    rows = [{"prompt": "2 + 3 =", "choices": choices}, {"prompt": None, "choices": choices}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = ScoreConfig(
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out"),
        model="demo",
        task="score",
        token_logprobs=True,
    )
    assert run_job(config, FakeBackend()) is ExitCode.ROW_ERRORS
    output = table(tmp_path / "out")
    assert run_job(replace(config, retry_failed=True), FakeBackend()) is ExitCode.ROW_ERRORS
    assert table(tmp_path / "out") == output

    (ids, of_failed_row) = output["scored_token_ids"].to_pylist()
    assert of_failed_row is None
    assert [len(tokens) for tokens in ids] == output["scored_tokens"][0].as_py()
    (logprobs, of_failed_row) = output["scored_logprobs"].to_pylist()
    assert of_failed_row is None
    for tokens, values, total in zip(
        ids, logprobs, output["loglikelihood"][0].as_py(), strict=True
    ):
        assert values == pytest.approx([-token / 7 for token in tokens])
        assert sum(values) == pytest.approx(total)


@pytest.mark.parametrize(
    ("nulls", "rate", "code"),
    [
        (1, 0.01, ExitCode.ROW_ERRORS),
        (2, 0.01, ExitCode.OVER_BUDGET),
        (1, 0.0, ExitCode.OVER_BUDGET),
    ],
)
def test_run_job_writes_all_rows_of_a_small_input(
    nulls: int, rate: float, code: ExitCode, config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    ids = pa.array([None] * nulls + [[5, 6]] * (3 - nulls), pa.list_(pa.int32()))
    pq.write_table(pa.table({"prompt_token_ids": ids}), tmp_path / "in.parquet")
    assert run_job(config(max_error_rate=rate), FakeBackend()) is code
    statuses = table(tmp_path / "out")["status"].to_pylist()
    assert statuses == ["error"] * nulls + ["ok"] * (3 - nulls)
    assert (tmp_path / "out" / "_SUCCESS").exists() is (code is ExitCode.ROW_ERRORS)


def test_run_job_that_reaches_no_cluster_exits_2(
    config: Callable[..., ScoreConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise ClusterConfigError("no Ray cluster answers")

    assert run_job(config(), FakeBackend(before_run=refuse)) is ExitCode.BAD_ARGUMENTS
    assert events(capsys)["error"]["message"] == "no Ray cluster answers"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_the_cluster_starts_is_reported(
    number: int, config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    def interrupt() -> None:
        with stop_at_once():  # as `ray_cluster` does
            os.kill(os.getpid(), number)

    assert run_job(config(), FakeBackend(before_run=interrupt)) is ExitCode.INTERRUPTED
    assert report(tmp_path / "out")["status"] == "interrupted"
    assert (tmp_path / "out" / "report.html").exists()
    assert run_job(config(), FakeBackend()) is ExitCode.OK


def test_second_ctrl_c_ends_the_run_with_one_line(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt_twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    assert run_job(config(), FakeBackend(before_run=interrupt_twice)) is ExitCode.INTERRUPTED
    assert events(capsys)["interrupted"]["message"] == (
        "the run was stopped at once; committed shards are kept, the same command continues it"
    )
    assert report(tmp_path / "out")["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_the_run_is_planned_exits_75(
    number: int, config: Callable[..., ScoreConfig]
) -> None:
    class InterruptedPlan(EarlyStopping):
        def select_shards(self, shards: Sequence[Shard]) -> Sequence[Shard]:
            os.kill(os.getpid(), number)
            return shards

    code = run_job(config(), FakeBackend(), InterruptedPlan())
    assert code is ExitCode.INTERRUPTED


def test_run_job_that_starts_no_replica_exits_2(
    config: Callable[..., ScoreConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    def never() -> None:
        raise AssertionError("a replica was started")

    backend = FakeBackend(before_run=never)
    assert run_job(config(max_len=2), backend) is ExitCode.BAD_ARGUMENTS
    assert events(capsys)["finished"]["level"] == "error"


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ClusterLostError("the head is gone"), ExitCode.INTERRUPTED, "interrupted"),
        (ModelError("no replica can load"), ExitCode.FAILED, "error"),
    ],
)
def test_run_job_maps_errors_of_the_cluster_to_exit_codes(
    error: Exception,
    code: ExitCode,
    status: str,
    config: Callable[..., ScoreConfig],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    assert run_job(config(), FakeBackend(before_run=fail)) is code
    logged = events(capsys)
    assert (logged[status]["exit_code"], logged[status]["message"]) == (code, str(error))
    assert logged["finished"]["exit_code"] == code


class StopAfter(EarlyStopping):
    """Stops a run after a number of commits."""

    def __init__(self, commits: int) -> None:
        self.calls = -1  # the first call comes before the run
        self.commits = commits

    def should_stop(self, replica_hours: float) -> bool:
        self.calls += 1
        return self.calls >= self.commits


def test_run_job_stops_early_and_continues_later(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = config(batch_tokens=32)
    backend = FakeBackend(batches_in_flight=1)
    assert run_job(small, backend, StopAfter(1)) is ExitCode.OK
    assert "ended_early" in events(capsys)
    assert report(tmp_path / "out")["status"] == "enough"
    assert table(tmp_path / "out").num_rows < ROWS
    assert not (tmp_path / "out" / "_SUCCESS").exists()

    assert run_job(small, backend, StopAfter(0)) is ExitCode.OK
    assert "has enough rows" in events(capsys)["complete"]["message"]

    assert run_job(small, backend) is ExitCode.OK
    assert table(tmp_path / "out").num_rows == ROWS
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_run_job_ends_before_its_limit_and_continues_with_a_higher_one(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = FakeBackend(batches_in_flight=1)
    flags = {"batch_tokens": 32, "cost_per_replica_hour": 2.0}
    limited = config(**flags, max_cost=1e-9)

    assert run_job(limited, backend) is ExitCode.INTERRUPTED
    message = events(capsys)["interrupted"]["message"]
    assert message.startswith("--max-cost 1e-09: the run has cost")
    assert message.endswith("to go on, repeat the command with a higher --max-cost")
    assert report(tmp_path / "out")["status"] == "interrupted"
    [hours] = (tmp_path / "out" / "replica-hours").iterdir()
    assert json.loads(hours.read_text())["cost"] > 1e-9

    assert run_job(limited, backend) is ExitCode.INTERRUPTED
    assert "started" not in events(capsys), "the hours of the first call are used up already"

    assert run_job(config(**flags, max_cost=1e9, deadline="9d"), backend) is ExitCode.OK
    assert table(tmp_path / "out").num_rows == ROWS
    assert run_job(limited, backend) is ExitCode.OK, "nothing is left to pay for"


def test_run_job_does_not_start_after_its_deadline(
    config: Callable[..., ScoreConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    late = config(deadline="2026-01-01T00:00Z")

    assert run_job(late, FakeBackend()) is ExitCode.INTERRUPTED
    message = events(capsys)["interrupted"]["message"]
    assert message.startswith("--deadline 2026-01-01T00:00Z: the time is up; committed shards are")


def test_run_job_resumes_after_its_input_was_touched(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    (tmp_path / "out" / "data" / "part-00002.parquet").unlink()
    (tmp_path / "out" / "_SUCCESS").unlink()
    os.utime(tmp_path / "in.parquet", ns=(1, 1))
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    assert table(tmp_path / "out").num_rows == ROWS
    assert (tmp_path / "out" / "_SUCCESS").exists()

    data = bytearray((tmp_path / "in.parquet").read_bytes())
    data[20] ^= 1
    (tmp_path / "in.parquet").write_bytes(data)
    events(capsys)
    assert run_job(config(), FakeBackend()) is ExitCode.BAD_ARGUMENTS
    assert "another configuration: input was" in events(capsys)["error"]["message"]


def test_run_job_logs_files_that_it_skips(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in.parquet").rename(tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "README.md").write_text("# Data")
    assert run_job(config(input=str(tmp_path / "in")), FakeBackend()) is ExitCode.OK
    message = "skipped 1 file of the input: README.md (a document)"
    assert events(capsys)["input_skipped"]["message"] == message
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["skipped"] == {
        "count": 1,
        "files": [{"path": "README.md", "reason": "a document"}],
    }


def is_row_1(request: Request) -> bool:
    return (request.ref.shard, request.ref.row) == (0, 1)


def test_run_job_resumed_counts_rows_that_failed_before(
    config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    poisoned = FakeBackend(poison=is_row_1)
    lenient = config(max_error_rate=0.5)
    assert run_job(lenient, poisoned) is ExitCode.ROW_ERRORS
    (tmp_path / "out" / "data" / "part-00002.parquet").unlink()
    (tmp_path / "out" / "_SUCCESS").unlink()

    assert run_job(lenient, FakeBackend()) is ExitCode.ROW_ERRORS
    strict = config(max_error_rate=0)
    (tmp_path / "out" / "data" / "part-00002.parquet").unlink()
    (tmp_path / "out" / "_SUCCESS").unlink()
    assert run_job(strict, FakeBackend()) is ExitCode.OVER_BUDGET
    assert not (tmp_path / "out" / "_SUCCESS").exists()


class RemoveParts(EarlyStopping):
    """Never stops a run; removes files of its folder after the last commit but `left`."""

    def __init__(self, remove: Callable[[], object], left: int = 0) -> None:
        self.calls = -1  # the first call comes before the run
        self.remove = remove
        self.left = left

    def should_stop(self, replica_hours: float) -> bool:
        self.calls += 1
        if self.calls == SHARDS - self.left:
            self.remove()
        return False


def test_run_job_notices_parts_that_vanish(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "out" / "data"

    def remove() -> None:
        (data / "part-00003.parquet").unlink()
        (data / "part-00007.parquet").unlink()

    assert run_job(config(), FakeBackend(), RemoveParts(remove)) is ExitCode.FAILED
    message = events(capsys)["error"]["message"]
    assert message.startswith(f"2 of 30 committed parts vanished from {data} during the run")
    assert "(part-00003.parquet, part-00007.parquet)" in message
    assert report(tmp_path / "out")["status"] == "failed"
    assert not (tmp_path / "out" / "_SUCCESS").exists()

    assert run_job(config(), FakeBackend()) is ExitCode.OK
    assert events(capsys)["started"]["shards_committed"] == 28
    assert table(tmp_path / "out").num_rows == ROWS


def test_run_job_notices_parts_of_an_earlier_driver_that_vanish(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "out" / "data"
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    (tmp_path / "out" / "_SUCCESS").unlink()
    (data / "part-00005.parquet").unlink()

    stopping = RemoveParts((data / "part-00011.parquet").unlink, left=SHARDS - 1)
    assert run_job(config(), FakeBackend(), stopping) is ExitCode.FAILED
    assert "1 of 30 committed parts vanished" in events(capsys)["error"]["message"]


def test_run_job_notices_that_its_folder_vanishes(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def remove() -> None:
        (tmp_path / "out").rename(tmp_path / "elsewhere")

    assert run_job(config(), FakeBackend(), RemoveParts(remove)) is ExitCode.FAILED
    assert "30 of 30 committed parts vanished" in events(capsys)["error"]["message"]
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    assert table(tmp_path / "out").num_rows == ROWS


def test_run_job_notices_that_run_json_vanishes(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = RemoveParts((tmp_path / "out" / "run.json").unlink)
    assert run_job(config(), FakeBackend(), stopping) is ExitCode.FAILED
    assert "run.json vanished during the run" in events(capsys)["error"]["message"]


def test_run_job_computes_removed_parts_of_a_complete_run_again(
    config: Callable[..., ScoreConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    complete = table(tmp_path / "out")
    (tmp_path / "out" / "data" / "part-00002.parquet").unlink()
    assert run_job(config(), FakeBackend()) is ExitCode.OK
    message = events(capsys)["parts_missing"]["message"]
    assert message.startswith("warning: 1 of 30 parts of the complete run")
    assert table(tmp_path / "out").equals(complete)


def test_run_job_of_a_complete_run_returns_the_same_exit_code(
    config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    lenient = config(max_error_rate=0.5)
    assert run_job(lenient, FakeBackend(poison=is_row_1)) is ExitCode.ROW_ERRORS
    assert run_job(lenient, FakeBackend()) is ExitCode.ROW_ERRORS
    assert run_job(config(max_error_rate=0), FakeBackend()) is ExitCode.OVER_BUDGET
    retry = config(max_error_rate=0.5, retry_failed=True)
    assert run_job(retry, FakeBackend()) is ExitCode.OK
    assert run_job(lenient, FakeBackend()) is ExitCode.OK


@pytest.mark.parametrize("left", [(), ("report.json",), ("interrupted",)])
def test_run_job_writes_the_report_of_a_driver_that_was_killed(
    left: tuple[str, ...], config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    lenient = config(max_error_rate=0.5)
    out = tmp_path / "out"
    assert run_job(lenient, FakeBackend(poison=is_row_1)) is ExitCode.ROW_ERRORS
    complete = report(out)
    (out / "_SUCCESS").unlink()
    if left == ("interrupted",):
        (out / "report.json").write_text(json.dumps(complete | {"status": "interrupted"}))
    else:
        (out / "report.html").unlink()
        if not left:
            (out / "report.json").unlink()

    assert run_job(lenient, FakeBackend()) is ExitCode.ROW_ERRORS
    assert (out / "_SUCCESS").exists()
    assert "complete, some rows failed" in (out / "report.html").read_text()
    counted = report(out)
    for name in (
        "status",
        "rows",
        "tokens",
        "errors_by_code",
        "error_examples",
        "prompt_length_histogram",
        "completion_length_histogram",
    ):
        assert counted[name] == complete[name], name
    if left == ("report.json",):
        assert counted == complete
    else:
        assert "counted from the output" in counted["message"]


class SimultaneousClient(Client):
    """Lets two drivers look for run.json before either of them writes it."""

    barrier = threading.Barrier(2, timeout=60)

    def stat(self, url: str) -> StoredObject | None:
        found = super().stat(url)
        if url.endswith("run.json"):
            self.barrier.wait()
        return found


def test_run_folder_created_twice_at_once_refuses_the_other_configuration(
    config: Callable[..., ScoreConfig], tmp_path: Path
) -> None:
    """The loser of the race must not continue with its own configuration."""

    def create(seed: int) -> str:
        plan = make_plan(config(seed=seed))
        folder = RunFolder(str(tmp_path / "out"), SimultaneousClient())
        try:
            existed = check_run(folder, fingerprint_keys(plan), run_description(plan))
        except ConfigError as error:
            return str(error)
        return "joined" if existed else "created"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(create, (1, 2)))
    refused = [outcome for outcome in outcomes if outcome != "created"]
    assert len(refused) == 1
    stored = json.loads((tmp_path / "out" / "run.json").read_text())
    seed = stored["fingerprint_keys"]["sampling"]["seed"]
    assert f"sampling.seed was {seed}, is {3 - seed}" in refused[0]
