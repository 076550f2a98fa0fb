"""The main job, repeated on one run folder without Ray.

Covers no-op runs, --retry-failed, the error budget and refusals.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Request
from jobs import score_dataset
from jobs.run.backend import Backend
from pipeline.monitoring.progress import ROWS_BEFORE_EARLY_STOP
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

ROWS = 30
Main = Callable[..., int]
FAKE = FakeBackend()


@pytest.fixture
def main(tmp_path: Path) -> Main:
    """The job on 30 prompts in shards of four."""
    ids = pa.array([[row + 1] * (row % 5 + 1) for row in range(ROWS)], pa.list_(pa.int32()))
    pq.write_table(
        pa.table({"id": list(range(ROWS)), "prompt_token_ids": ids}), tmp_path / "in.parquet"
    )

    def call(output: str, *flags: object, backend: Backend = FAKE) -> int:
        fixed = [
            "-i",
            tmp_path / "in.parquet",
            "-o",
            tmp_path / output,
            "--model",
            "demo",
            "--max-len",
            64,
            "--shard-rows",
            4,
        ]
        words = (*fixed, "--max-tokens", 3, "--n", 2, *flags)
        return score_dataset.main([str(word) for word in words], backend)

    return call


def is_poison(request: Request) -> bool:
    return request.prompt_ids[0] in (7, 8, 20)


def test_retry_failed_gives_the_output_of_a_run_without_failures(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("undisturbed") == 0
    poisoned = FakeBackend(poison=is_poison)
    assert main("out", "--max-error-rate", 0.5, "--max-attempts", 2, backend=poisoned) == 3
    failed = [
        row["id"]
        for row in table(tmp_path / "out").to_pylist()
        if row["error_code"] == "engine_crash"
    ]
    assert sorted(set(failed)) == [6, 7, 19]
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").iterdir()}
    assert main("out", "--max-error-rate", 0.5) == 3, "finished: a no-op with the same exit code"
    assert "nothing to do" in capsys.readouterr().out
    assert main("out", "--retry-failed") == 0
    assert table(tmp_path / "out").equals(table(tmp_path / "undisturbed"))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "data").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {
        "part-00001.parquet",
        "part-00004.parquet",
    }
    assert main("out", "--retry-failed") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_exceeded_error_budget_stops_and_keeps_committed_shards(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS_BEFORE_EARLY_STOP + 200
    ids = pa.array([[row + 1] if row < 8 else [] for row in range(rows)], pa.list_(pa.int32()))
    pq.write_table(
        pa.table({"id": list(range(rows)), "prompt_token_ids": ids}), tmp_path / "in.parquet"
    )
    sizes = ("--shard-rows", 100)
    assert main("out", *sizes) == 4
    told = capsys.readouterr().err
    assert "--max-error-rate" in told
    assert "empty_prompt" in told
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "data").glob("part-*")}
    assert 1 <= len(kept) < 12
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert main("out", *sizes, "--max-error-rate", 1) == 3
    assert all(
        (tmp_path / "out" / "data" / name).read_bytes() == data for name, data in kept.items()
    )
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert main("undisturbed", *sizes, "--max-error-rate", 1) == 3
    assert table(tmp_path / "out").equals(table(tmp_path / "undisturbed"))


def test_another_configuration_is_refused_and_changes_nothing(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("out") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main("out", "--seed", 5, "--shard-rows", 5, "--prompt-logprobs", 1) == 2
    told = capsys.readouterr().err
    for part in (
        "sampling.seed was 0, is 5",
        "shards.shard_rows was 4, is 5",
        "prompt_logprobs was null, is 1",
    ):
        assert part in told
    assert {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    } == before


def test_run_from_before_a_parameter_existed_continues(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A parameter that has no effect by default is in the fingerprint only where it is set."""
    before = {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "n",
        "min_tokens",
        "ignore_eos",
    }
    assert main("out") == 0
    assert (
        json.loads((tmp_path / "out" / "run.json").read_text())["fingerprint_keys"][
            "sampling"
        ].keys()
        == before
    )
    whole = table(tmp_path / "out")
    for name in ("_SUCCESS", "data/part-00002.parquet"):
        (tmp_path / "out" / name).unlink()
    assert main("out", "--min-p", 0, "--repetition-penalty", 1, "--repetition-max-pattern", 0) == 0
    assert table(tmp_path / "out").equals(whole)
    capsys.readouterr()
    for flags, told in (
        (("--min-p", 0.1), "sampling.min_p was null, is 0.1"),
        (("--repetition-penalty", 1.5), "sampling.repetition_penalty was null, is 1.5"),
        (("--repetition-max-pattern", 9), "sampling.repetition_max_pattern was null, is 9"),
    ):
        assert main("out", *flags) == 2
        assert told in capsys.readouterr().err
        assert main(flags[0], *flags) == 0, "in a folder of its own it runs"
        assert main(flags[0]) == 2, "and is not continued without it"


def test_last_partition_writes_the_success_marker(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (2, 0, 1):
        assert not (tmp_path / "out" / "_SUCCESS").exists()
        assert main("out", "--partition", f"{index}/3") == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert main("undisturbed") == 0
    assert table(tmp_path / "out").equals(table(tmp_path / "undisturbed"))
    assert (
        json.loads((tmp_path / "out" / "report-1-of-3.json").read_text())["rows"][
            "shards_committed"
        ]
        == 3
    )
