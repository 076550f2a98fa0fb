"""gpu_report.py: what the cost model reads of a check."""

import json
from dataclasses import replace

import jax.numpy as jnp
import pytest

from actors.engine.planning.device_profiles import read_measurement
from actors.kernels.gpu.experts import Tile
from jobs.checks.ceilings import Ceilings
from jobs.checks.device_time import DeviceTime
from jobs.checks.gpu_cases import Case
from jobs.checks.gpu_kernels import Result
from jobs.checks.gpu_report import kernel_times, report
from jobs.checks.gpu_tiles import TileResult
from jobs.checks.gpu_trace import GpuTrace, KernelTime

CEILINGS = Ceilings(product_flops_per_s=8e14, read_bytes_per_s=3e12, copy_bytes_per_s=3e12)
EXPERTS = Case(
    kernel="experts",
    tokens=64,
    dtype="bfloat16",
    function=lambda _: jnp.negative,
    arguments=(jnp.zeros(1),),
    min_bytes=604e6,
    flops=19e9,
)
ATTENTION = replace(EXPERTS, kernel="attention_decode", context=512, min_bytes=16e6)
TRACE = GpuTrace(
    (
        KernelTime("grouped_2x_32_rows", 1, 151e-6),
        KernelTime("grouped_1x_32_rows", 1, 80e-6),
        KernelTime("group_by_expert", 1, 4e-6),
    ),
    busy_s=235e-6,
    span_s=240e-6,
)
RESULTS = [
    Result(EXPERTS, 0.01, DeviceTime(260e-6, 270e-6), DeviceTime(2e-3, 2e-3), TRACE),
    Result(replace(EXPERTS, kernel="routing"), 0.01, DeviceTime(6e-6, 7e-6)),
    Result(ATTENTION, 0.01, DeviceTime(16e-6, 17e-6), DeviceTime(9e-5, 9e-5)),
    Result(replace(ATTENTION, dtype="float32"), 1e-5, DeviceTime(30e-6, 31e-6)),
]


def test_cost_model_gets_products_routing_with_tiles_and_attention() -> None:
    times = kernel_times(RESULTS, "2026-11-26", "H100, jax 0.10.2")

    figures = [(time.kernel, time.tokens, time.context, time.low_us) for time in times]
    assert figures == [
        ("experts_gate_value", 64, 0, pytest.approx(151)),
        ("experts_out", 64, 0, pytest.approx(80)),
        ("routing", 64, 0, pytest.approx(10)),
        ("attention_decode", 64, 512, pytest.approx(16)),
    ]
    assert {time.status for time in times} == {"measured"}


def test_report_is_a_measurement_of_the_cost_model() -> None:
    figures = json.loads(json.dumps(report(RESULTS, [], CEILINGS, is_interpreted=False)))

    assert len(read_measurement(json.dumps(figures))) == 4
    assert figures["ceilings"]["read_bytes_per_s"] == 3e12
    assert figures["cases"][0]["kernels"][0]["name"] == "grouped_2x_32_rows"
    assert figures["cases"][0]["floor_us"] == pytest.approx(604e6 / 3e12 * 1e6)


def test_interpreted_times_are_not_for_the_cost_model() -> None:
    figures = report(RESULTS, [], CEILINGS, is_interpreted=True)

    assert figures["times"] == []
    assert len(figures["cases"]) == 4


def test_line_names_a_wrong_result() -> None:
    wrong = replace(RESULTS[0], difference=float("nan"))

    assert "260.0 us,  77.4% of the roof" in RESULTS[0].line(CEILINGS)
    assert RESULTS[0].is_right
    assert not wrong.is_right
    assert wrong.line(CEILINGS).endswith("WRONG")


def test_report_lists_tiles_that_were_tried() -> None:
    tile = Tile(rows=64, columns=128, depth=64, warps=4, stages=3)
    tried = [TileResult(tile, RESULTS[0]), TileResult(tile, None, "XlaRuntimeError: registers")]

    figures = report([], tried, CEILINGS, is_interpreted=False)

    assert figures["times"] == []
    assert [row["tile"] for row in figures["tiles"]] == ["64x128x64x4x3"] * 2
    assert figures["tiles"][0]["us"] == pytest.approx(260)
    assert figures["tiles"][1]["failure"] == "XlaRuntimeError: registers"
