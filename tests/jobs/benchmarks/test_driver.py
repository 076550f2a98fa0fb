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
