"""jobs/benchmark_pipeline.py: arguments, and consistent figures of a small run."""

import json
from pathlib import Path

import pytest

from jobs import benchmark_pipeline
from tests.jobs.benchmarks.pipeline_inputs import arguments


def test_invalid_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_pipeline.main([]) == 2
    assert "--input is missing" in capsys.readouterr().err
    assert benchmark_pipeline.main(arguments(tmp_path, 2, "--max-tokens", "4000")) == 2
    assert "the longest prompt needs" in capsys.readouterr().err
    assert not (tmp_path / "benchmark").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_benchmark_figures_of_a_small_run_are_consistent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    flags = ("--task", "score", "--rounds", "1", "--json", str(path))
    assert benchmark_pipeline.main(arguments(tmp_path, 12, *flags)) == 0
    output = capsys.readouterr().out
    assert "Parquet to Parquet reaches" in output
    figures = json.loads(path.read_text())
    assert figures["rows"] == 12
    for kind in ("engine", "pipeline"):
        assert figures[kind]["gain"] == pytest.approx(figures["ideal_gain"]["pages"], rel=0.05), (
            "all that repeats is computed once"
        )
    # No upper limit: it is the ratio of two short measurements.
    assert figures["efficiency"][0] > 0
    assert not (tmp_path / "benchmark").exists()
