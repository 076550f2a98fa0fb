import re
from typing import Any

import pytest

from jobs.benchmarks.engine_table import COLD_COLUMN, COLUMNS, print_figures

FIGURES: dict[str, Any] = {
    "machine": {
        "device": "cpu",
        "cores": 2,
        "product_flops_per_s": 123e9,
        "read_bytes_per_s": 20.5e9,
        "copy_bytes_per_s": 18.25e9,
    },
    "config": {"model": "small", "dtype": "bfloat16"},
    "layers": 4,
    "prefill": {
        "rows": 8,
        "length": 256,
        "tokens_per_s": 12345.6,
        "mfu": 0.31,
        "padding": 0.02,
        "programs": 3,
        "first_token_cold_s": 4.25,
        "gpu": None,
    },
    "decode": [
        {
            "slots": slots,
            "tokens_per_s": 10.0 * slots,
            "mfu": 0.011,
            "mbu": 0.622,
            "of_roof": 0.633,
            "programs": 1,
            "gpu": None,
        }
        for slots in (8, 32)
    ],
    "peak_memory_bytes": 1.5e9,
    "device_peak_bytes": None,
}


def cells(output: str, label: str) -> list[str]:
    """Returns the cells of the row that begins with `label`."""
    [line] = [line for line in output.splitlines() if line.startswith(label)]
    return re.split(r" {2,}", line)


def test_engine_table_has_a_row_for_prefill_and_each_slot_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_figures(FIGURES)

    output = capsys.readouterr().out
    assert "cpu, 2 cores: product 123 GFLOP/s, reading 20.5 GB/s, copying 18.2 GB/s" in output
    assert "model small, 4 layers, bfloat16" in output
    assert cells(output, "measured") == [*COLUMNS, COLD_COLUMN]
    assert cells(output, "prefill 8x256") == [
        "prefill 8x256",
        "12,346",
        "31.0%",
        "31.0%",
        "2.0%",
        "3",
        "4.2 s",
    ]
    for slots, rate in ((8, "80"), (32, "320")):
        label = f"decode, {slots} slots"
        assert cells(output, label) == [label, rate, "1.1%", "62.2%", "63.3%", "1"]


@pytest.mark.parametrize("device_peak_bytes", [None, 2.25e9])
def test_engine_table_prints_device_memory_where_it_is_known(
    device_peak_bytes: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    print_figures(FIGURES | {"device_peak_bytes": device_peak_bytes})

    output = capsys.readouterr().out
    assert "peak memory of the process 1.50 GB" in output
    assert ("peak memory of the device 2.25 GB" in output) == (device_peak_bytes is not None)


def test_engine_table_lists_the_kernels_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    gpu = {
        "busy_us_per_layer": 320.25,
        "span_us_per_layer": 341.5,
        "launches_per_layer": 28.5,
        "kernels": [{"name": "grouped", "us_per_layer": 151.5, "launches_per_layer": 1.0}],
    }
    decode = [FIGURES["decode"][0] | {"gpu": gpu}]

    print_figures(FIGURES | {"decode": decode})

    output = capsys.readouterr().out
    assert "decode, 8 slots: a layer takes 341.5 us, the GPU is busy 320.2 us, 28.5 laun" in output
    assert "151.50 us    1.00 launches  grouped" in output
