"""Small runs of jobs/benchmark_driver.py: complete output, consistent figures, folder removed."""

import re
from pathlib import Path

import pytest

from jobs import benchmark_driver

SMALL = [
    "--rows",
    "3000",
    "--replicas",
    "20",
    "--prompt-tokens",
    "20",
    "--max-tokens",
    "4",
    "--batch-tokens",
    "512",
]


@pytest.mark.slow
def test_benchmark_runs_with_losses_and_stragglers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "benchmark"
    more = [
        "--service-s",
        "2",
        "--failure-s",
        "40",
        "--slow-share",
        "0.05",
        "--in-flight",
        "2",
        "--shard-rows",
        "100",
    ]
    assert benchmark_driver.main(["--folder", str(folder), *SMALL, *more]) == 0
    told = capsys.readouterr().out
    for part in (
        "rows/s of the driver alone",
        "driver time per batch",
        "peak memory",
        "replicas idle",
        "tail after",
        "lost",
    ):
        assert part in told
    assert "memory at        3,000 rows" in told
    idle = re.search(r"replicas idle ([\d.]+)%", told)
    assert idle is not None
    assert 0 < float(idle[1]) < 100
    assert not folder.exists()
    assert benchmark_driver.main(["--folder", str(tmp_path), *SMALL]) == 2
    assert "would be deleted" in capsys.readouterr().err


def test_benchmark_of_windows_reports_the_size_of_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--rows", 50, "--replicas", 2, "--prompt-tokens", 200, "--task", "perplexity"]
    words += ["--prompt-logprobs", 2, "--window-len", 64]
    assert benchmark_driver.main(["--folder", str(tmp_path / "new"), *map(str, words)]) == 0
    output = capsys.readouterr().out
    assert "µs per row" in output
    megabytes = re.search(r"([\d.]+) MB per million tokens of the input", output)
    assert megabytes is not None
    # A log-prob and two most likely tokens with theirs: 20 bytes, and what a small file has beside.
    assert 10 < float(megabytes[1]) < 60


def test_benchmark_refuses_flags_of_another_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--folder", str(tmp_path / "new"), "--window-len", "64"]
    assert benchmark_driver.main(words) == 2
    assert "no effect on --task generate" in capsys.readouterr().err
