"""Small runs of jobs/benchmark_driver.py: complete output, consistent figures, folder removed."""

import re
from pathlib import Path

import pytest

from actors.protocol.events import Assignment, BatchDone, ReplicaLost, ReplicaReady
from actors.protocol.messages import Batch, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs import benchmark_driver
from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from jobs.benchmarks.simulated_replicas import SimulatedClock, SimulatedReplicas

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


def test_simulated_time_jumps_when_the_driver_waits() -> None:
    clock = SimulatedClock()
    replicas = SimulatedReplicas(
        DriverBenchmarkConfig(folder="x", replicas=1, service_s=1000.0, failure_s=None), clock
    )
    [ready] = replicas.events(0.0)
    assert isinstance(ready, ReplicaReady)
    request = Request(RowRef(0, 0), token_ids([1, 2]), sampling=Sampling(max_tokens=3))
    replicas.submit(Assignment(1, Batch((request,)), ready.replica))
    assert replicas.events(0.0) == []
    while not (found := replicas.events(1e6)):
        assert clock.now() < 1e6
    [done] = found
    assert isinstance(done, BatchDone)
    assert [len(one.token_ids) for one in done.result.completions] == [3]
    assert clock.now() > 10
    assert clock.driver_s < 10
    replicas.close()
    assert 0 < replicas.busy_s <= replicas.up_s


def test_lost_replicas_come_back_under_another_name() -> None:
    replicas = SimulatedReplicas(
        DriverBenchmarkConfig(folder="x", replicas=1, failure_s=5.0), SimulatedClock()
    )
    seen = [event for _ in range(6) for event in replicas.events(1e6)]
    names = [event.replica for event in seen if isinstance(event, ReplicaReady)]
    assert len(names) == len(set(names)) >= 2
    assert any(isinstance(event, ReplicaLost) for event in seen)
