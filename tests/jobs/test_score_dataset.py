import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import score_dataset
from jobs.run.config import ScoreConfig
from jobs.run.description import run_description
from jobs.run.fingerprint import fingerprint_keys
from jobs.run.plan import make_plan
from pipeline.output.run_folder import RunFolder, check_run, fingerprint
from tests.jobs.runs import job


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    texts = ["what is 2 plus 3?", None, "", "it is", "x " * 100_000, "a b c", "d", "e"]
    path = tmp_path / "prompts.parquet"
    pq.write_table(
        pa.table({"id": list(range(len(texts))), "prompt": texts, "topic": ["t"] * len(texts)}),
        path,
    )
    return path


Main = Callable[..., int]


@pytest.fixture
def main(prompts: Path, tmp_path: Path) -> Main:
    """The job's main in this process, for everything that ends before a replica would start."""

    def call(*arguments: object) -> int:
        base = [
            "-i",
            str(prompts),
            "-o",
            str(tmp_path / "out"),
            "--model",
            "demo",
            "--max-tokens",
            "4",
        ]
        return score_dataset.main([*base, *map(str, arguments)])

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "/nowhere"), "and '/nowhere'; put the files into one folder"),
        (("--prompt-column", "question"), "'question'"),
        (("--task", "score"), "'continuation'"),
        (("--mesh", "1x3"), "splits over 3 devices"),
        (("--max-len", "4"), "no prompt fits beside it"),
        (("--max-len", "999999"), "context of 2048 tokens"),
        (("--checkpoint", "/nowhere"), "checkpoint /nowhere"),
        (("--tokenizer", "pyproject.toml"), "expected a SentencePiece model"),
        (("--model", "gpt", "--checkpoint", "x"), "expected one of"),
        (("--resume", "require"), "holds no run to resume"),
        (("--zork", "1"), "--zork"),
        (("--mesh", "1x3", "--shard-activations"), "splits over 3 devices"),
        (("--repetition-min-count", "4"), "has no effect without --repetition-max-pattern"),
    ],
)
def test_invalid_flags_are_refused_before_the_run(
    arguments: tuple[str, ...],
    message: str,
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_a_plan_and_writes_nothing(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("--dry-run", "true", "--cost-per-replica-hour", "2") == 0
    figures = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith("device_bytes ")
    )
    assert (figures["rows"], figures["rows_failing"], figures["new_tokens_at_most"]) == (
        "8",
        "3",
        "20",
    )
    assert not (tmp_path / "out").exists()


def test_dry_run_needs_no_output_and_prints_json(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["-i", str(prompts), "--model", "demo", "--max-tokens", "4"]
    assert score_dataset.main([*flags, "--dry-run", "--json"]) == 0

    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["rows_failing"], figures["new_tokens_at_most"]) == (8, 3, 20)
    assert figures["machine_assumed"] == "two CPU cores"
    low, expected, high = figures["hours"]
    assert low < expected < high


def test_json_without_a_dry_run_is_refused(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--json") == 2
    assert "--json prints the plan of a dry run; add --dry-run" in capsys.readouterr().err


def test_folder_of_another_run_is_refused_with_the_key(
    main: Main, tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ScoreConfig(
        input=str(prompts), output=str(tmp_path / "out"), model="demo", max_tokens=5
    )
    plan = make_plan(config)
    keys = fingerprint_keys(plan)
    folder = RunFolder(str(tmp_path / "out"))
    check_run(folder, keys, run_description(plan))
    assert main() == 2
    assert "sampling.max_tokens was 5, is 4" in capsys.readouterr().err
    stored = json.loads((tmp_path / "out" / "run.json").read_text())
    assert stored["fingerprint"] == fingerprint(keys)
    assert {"config", "versions", "git_commit", "input"} <= stored.keys()


def test_engine_configuration_follows_the_flags(prompts: Path, tmp_path: Path) -> None:
    config = ScoreConfig(
        input=str(prompts),
        output=str(tmp_path),
        model="demo",
        max_tokens=5,
        max_len=64,
        logprobs=3,
        shard_activations=True,
    )
    engine = make_plan(config).engine_config()
    assert (engine.max_len, engine.logprobs, engine.prompt_logprobs, engine.shard_activations) == (
        64,
        3,
        None,
        True,
    )
    assert set(engine.sampling_parameters) == {"max_tokens"}


def test_engines_track_tokens_only_for_penalties(prompts: Path, tmp_path: Path) -> None:
    """By the flag or by a column; never for a task that draws nothing."""
    columns = tmp_path / "columns.parquet"
    table = {
        "prompt": ["a", "b"],
        "continuation": ["c", "d"],
        "repetition_penalty": [None, 1.2],
        "repetition_max_pattern": [0, 8],
    }
    pq.write_table(pa.table(table), columns)

    def tracked(source: Path, **flags: Any) -> bool:
        config = ScoreConfig(
            input=str(source),
            output=str(tmp_path / "out"),
            model="demo",
            max_tokens=5,
            max_len=64,
            **flags,
        )
        engine = make_plan(config).engine_config()
        return "repetition_penalty" in engine.sampling_parameters

    assert tracked(prompts, repetition_penalty=1.1)
    assert tracked(columns)
    assert tracked(columns, repetition_min_count=4), (
        "a count without a flag for the pattern: the column has it"
    )
    assert not tracked(prompts, min_p=0.1, repetition_max_pattern=8)
    assert not tracked(columns, task="score", repetition_penalty=1.1)


@pytest.mark.slow
@pytest.mark.ray
def test_run_reports_error_rows_and_can_be_repeated(prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    flags = [
        "-i",
        prompts,
        "-o",
        output,
        "--model",
        "demo",
        "--max-tokens",
        3,
        "--max-len",
        64,
        "--dtype",
        "float32",
    ]
    first = job(*flags, "--max-error-rate", 0.5, "--shard-rows", 3)
    assert first.returncode == 3, first.stderr
    assert str(output / "data") in first.stdout
    rows = [
        row
        for part in sorted((output / "data").glob("*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]
    assert [row["id"] for row in rows] == list(range(8))
    assert [row["error_code"] for row in rows][:5] == [
        None,
        "missing_prompt",
        "empty_prompt",
        None,
        "prompt_too_long",
    ]
    assert all(
        len(row["token_ids"]) == 3 and row["topic"] == "t" for row in rows if row["status"] == "ok"
    )
    assert json.loads((output / "report.json").read_text())["errors_by_code"]["empty_prompt"] == 1
    assert (output / "_SUCCESS").exists()
    again = job(*flags, "--max-error-rate", 0.5, "--shard-rows", 3)
    assert (again.returncode, "nothing to do" in again.stdout) == (3, True)
    over = job(*flags[:2], "-o", tmp_path / "strict", *flags[4:], "--limit", 3)
    assert over.returncode == 4
    assert "2 of 3 rows failed" in over.stderr
    assert not (tmp_path / "strict" / "_SUCCESS").exists()
