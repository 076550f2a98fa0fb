"""jobs/benchmark_pipeline.py: prompts of each pass, and consistent figures of a small run."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import benchmark_pipeline
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_prompts import input_requests, pass_table
from jobs.cli.parser import parse

DEMO = Path(benchmark_pipeline.__file__).parent / "demo"
BEGINNING = "Every question has one right answer, and every answer is a number or a word. " * 2


def prompts(folder: Path, rows: int) -> Path:
    texts = [f"{BEGINNING}What is {row} and {row}?" for row in range(rows)]
    choices = [[f" {row}", f" {2 * row} or more"] for row in range(rows)]
    pq.write_table(pa.table({"prompt": texts, "choices": choices}), folder / "prompts.parquet")
    return folder / "prompts.parquet"


def arguments(folder: Path, rows: int, *more: str) -> list[str]:
    flags = {
        "input": prompts(folder, rows),
        "tokenizer": DEMO / "tokenizer.model",
        "folder": folder / "made",
        "model": "demo",
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))] + list(
        more
    )


def test_passes_have_equal_lengths_and_different_ids(tmp_path: Path) -> None:
    config = parse(
        PipelineBenchmarkConfig,
        arguments(tmp_path, 3, "--copies", "2"),
        program="",
        description="",
    )
    requests = input_requests(config)
    first, second = (
        pass_table(config, requests, number)["prompt_token_ids"].to_pylist() for number in range(2)
    )
    assert [len(ids) for ids in first] == [len(ids) for ids in second]
    assert len(first) == 6
    assert first[0][:20] == first[1][:20] != second[0][:20]
    assert first[0][0] != first[3][0], "the copies have nothing in common either"


def test_invalid_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_pipeline.main([]) == 2
    assert "--input is missing" in capsys.readouterr().err
    assert benchmark_pipeline.main(arguments(tmp_path, 2, "--max-tokens", "4000")) == 2
    assert "the longest prompt needs" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_benchmark_figures_of_a_small_run_are_consistent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "figures.json"
    assert (
        benchmark_pipeline.main(
            arguments(tmp_path, 12, "--task", "score", "--rounds", "1", "--json", str(found))
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "Parquet to Parquet reaches" in told
    figures = json.loads(found.read_text())
    assert figures["rows"] == 12
    for kind in ("engine", "pipeline"):
        assert figures[kind]["gain"] == pytest.approx(figures["ideal_gain"]["pages"], rel=0.05), (
            "all that repeats is computed once"
        )
    assert 0 < figures["efficiency"][0] < 2
    assert not (tmp_path / "made").exists()
