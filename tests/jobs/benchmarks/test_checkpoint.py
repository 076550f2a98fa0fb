"""The benchmark of loading: measures what it says, on a model of one small layer, and cleans up."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from actors.model.config import DEMO, parameter_shapes
from jobs import benchmark_checkpoint
from jobs.benchmarks.checkpoint import (
    CheckpointBenchmarkConfig,
    run_benchmark,
    synthetic_config,
)


def test_benchmark_of_a_layer_takes_half_a_gigabyte() -> None:
    one, two = (parameter_shapes(synthetic_config(layers)).stored_bytes for layers in (1, 2))
    assert two - one == pytest.approx(0.55e9, rel=0.02)


@pytest.mark.slow
def test_benchmark_prints_a_row_per_layout_and_cleans_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CheckpointBenchmarkConfig(str(tmp_path), layers=1, rounds=1, meshes=("1x2",))
    run_benchmark(config, make_model=lambda layers: replace(DEMO, num_layers=layers))
    rows = re.findall(
        r"^\| ([\w-]+) \| 1x2 \| [\d.]+ \| [\d.]+ \| \d+% \(\d+%\) \|",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    assert rows == ["ckpt-0", "converted"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--folder is missing"),
        (["--folder", "x", "--rounds", "0"], "--layers and --rounds: expected at least 1"),
    ],
)
def test_invalid_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_checkpoint.main(arguments) == 2
    assert message in capsys.readouterr().err
