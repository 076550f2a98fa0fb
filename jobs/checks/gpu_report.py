"""The figures of a check of a GPU as JSON, with times as the cost model reads them."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from actors.engine.planning.device_profiles import KernelTime, measurement
from jobs.checks.ceilings import Ceilings
from jobs.checks.device_time import DeviceTime
from jobs.checks.gpu_kernels import Result
from jobs.checks.gpu_tiles import TileResult, tile_text
from jobs.checks.gpu_trace import GpuTrace

SOURCE = "jobs/check_gpu.py"
# Name of a grouped product in the trace -> its name in the cost model.
EXPERT_KERNELS: Mapping[str, str] = {
    "grouped_2x": "experts_gate_value",
    "grouped_1x": "experts_out",
}
# The kernel of the experts' trace that cuts rows into tiles: part of "routing" in the cost model.
TILES_KERNEL = "group_by_expert"
US = 1e6


def report(
    results: Sequence[Result],
    tile_results: Sequence[TileResult],
    ceilings: Ceilings,
    *,
    is_interpreted: bool,
) -> dict[str, Any]:
    """Returns the JSON object of a check.

    `times` is what the cost model reads; it is empty when kernels were interpreted. The other keys
    are for readers.
    """
    device = jax.devices()[0]
    times: list[KernelTime] = []
    if not is_interpreted:
        hardware = f"{device.device_kind}, jax {jax.__version__}"
        times = kernel_times(results, time.strftime("%Y-%m-%d"), hardware)
    return {
        **measurement(times),
        "device": device.device_kind,
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "is_interpreted": is_interpreted,
        "ceilings": dataclasses.asdict(ceilings),
        "cases": [_case_figures(result, ceilings) for result in results],
        "tiles": [_tile_figures(result, ceilings) for result in tile_results],
    }


def kernel_times(results: Sequence[Result], date: str, hardware: str) -> list[KernelTime]:
    """Returns the times of a check for the cost model: those of bfloat16 activations.

    The grouped products of the experts come from the trace, which times each kernel. Their tiles
    count as routing.
    """
    tiles_s = _tiles_seconds(results)
    times: list[KernelTime] = []
    for result in results:
        case = result.case
        is_sampling = case.kernel.startswith("sampling")
        if result.time is None or (case.dtype != "bfloat16" and not is_sampling):
            continue
        if case.kernel == "page_writes":
            continue  # the run that `attention_inputs` times

        by_kernel = {case.kernel: result.time}
        if case.kernel == "experts":
            by_kernel = _expert_times(result.trace)
        if case.kernel == "routing":
            by_kernel = {case.kernel: _plus(result.time, tiles_s.get(case.tokens, 0.0))}
        for kernel, measured in by_kernel.items():
            times.append(
                KernelTime(
                    kernel=kernel,
                    tokens=case.tokens,
                    context=case.context,
                    low_us=measured.shortest_s * US,
                    high_us=measured.median_s * US,
                    status="measured",
                    source=SOURCE,
                    date=date,
                    hardware=hardware,
                )
            )
    return times


def _tiles_seconds(results: Sequence[Result]) -> dict[int, float]:
    """Returns the seconds that cutting tiles takes, for each number of tokens."""
    seconds: dict[int, float] = {}
    for result in results:
        is_experts = result.case.kernel == "experts" and result.case.dtype == "bfloat16"
        if is_experts and result.trace is not None:
            seconds[result.case.tokens] = result.trace.seconds_of(TILES_KERNEL)
    return seconds


def _plus(time: DeviceTime, seconds: float) -> DeviceTime:
    return DeviceTime(time.shortest_s + seconds, time.median_s + seconds)


def _expert_times(trace: GpuTrace | None) -> dict[str, DeviceTime]:
    """Returns the time of each grouped product in the trace of one run."""
    times: dict[str, DeviceTime] = {}
    if trace is None:
        return times
    for traced_name, kernel in EXPERT_KERNELS.items():
        seconds = trace.seconds_of(traced_name)
        if seconds > 0:
            times[kernel] = DeviceTime(seconds, seconds)
    return times


def _case_figures(result: Result, ceilings: Ceilings) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "kernel": result.case.kernel,
        "tokens": result.case.tokens,
        "context": result.case.context,
        "dtype": result.case.dtype,
        "difference": result.difference,
        "floor_us": result.floor_s(ceilings) * US,
    }
    if result.time is not None:
        figures["us"] = result.time.shortest_s * US
        figures["median_us"] = result.time.median_s * US
    if result.xla_time is not None:
        figures["xla_us"] = result.xla_time.shortest_s * US
    if result.trace is not None:
        figures["kernels"] = [
            {"name": kernel.name, "launches": kernel.launches, "us": kernel.seconds * US}
            for kernel in result.trace.kernels
        ]
    return figures


def _tile_figures(tried: TileResult, ceilings: Ceilings) -> dict[str, Any]:
    figures: dict[str, Any] = {"tile": tile_text(tried.tile)}
    if tried.result is None:
        return {**figures, "failure": tried.failure}
    return {**figures, **_case_figures(tried.result, ceilings)}
