"""The benchmark of loading: measures what it says, on a model of one small layer, and cleans up."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from actors.model.config import DEMO, parameter_shapes
from jobs import benchmark_checkpoint


def test_a_layer_takes_half_a_gigabyte() -> None:
    one, two = (
        parameter_shapes(benchmark_checkpoint.synthetic_config(n)).stored_bytes for n in (1, 2)
    )
    assert two - one == pytest.approx(0.55e9, rel=0.02)


@pytest.mark.slow
def test_measures_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        benchmark_checkpoint, "synthetic_config", lambda layers: replace(DEMO, num_layers=layers)
    )
    arguments = ["--folder", str(tmp_path), "--layers", "1", "--rounds", "1", "--meshes", "1x2"]
    assert benchmark_checkpoint.main(arguments) == 0
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
def test_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_checkpoint.main(arguments) == 2
    assert message in capsys.readouterr().err
