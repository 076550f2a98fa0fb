"""jobs/benchmark.py on a tiny shard: the way of grok-1-shard, on the CPU."""

import json
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmarks.engine import _kernel_figures
from jobs.checks.gpu_trace import GpuTrace, KernelTime

SIZES = [
    "--slots=2",
    "--prefill-rows=1",
    "--prefill-length=16",
    "--context=4",
    "--new-tokens=2",
    "--layers=1",
]


@pytest.mark.slow
def test_shard_is_measured_with_int8_weights(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    arguments = ["--model=tiny-shard", "--weights=int8", *SIZES, f"--json={out}"]

    assert benchmark.main(arguments) == 0

    figures = json.loads(out.read_text())
    assert figures["layers"] == 1
    assert figures["prefill"]["tokens_per_s"] > 0
    assert figures["prefill"]["gpu"] is None
    assert [row["slots"] for row in figures["decode"]] == [2]
    assert figures["decode"][0]["mbu"] > 0


def test_kernel_times_are_those_of_one_run_of_a_layer() -> None:
    kernels = (KernelTime("experts", 8, 4e-3), KernelTime("attention", 16, 2e-3))
    trace = GpuTrace(kernels, busy_s=6e-3, span_s=8e-3)

    figures = _kernel_figures(trace, layer_runs=8)

    assert figures is not None
    assert figures["busy_us_per_layer"] == pytest.approx(750)
    assert figures["span_us_per_layer"] == pytest.approx(1000)
    assert figures["launches_per_layer"] == 3
    assert figures["kernels"][1] == {
        "name": "attention",
        "us_per_layer": pytest.approx(250),
        "launches_per_layer": 2,
    }
