"""Prints the figures of the engine benchmark.

Plain text: the benchmark runs on machines that have JAX and little else.
"""

from collections.abc import Sequence
from typing import Any

COLUMNS = ("measured", "tokens/s", "MFU", "MBU", "of roof", "padding", "programs")
COLD_COLUMN = "first token, cold"
GAP = "  "  # between columns
MAX_NAME = 60  # characters of a kernel's name


def print_figures(figures: dict[str, Any]) -> None:
    """Prints machine, prefill, decode, kernels of a GPU, and peak memory."""
    machine = figures["machine"]
    product_gflops = machine["product_flops_per_s"] / 1e9
    read_gb = machine["read_bytes_per_s"] / 1e9
    copy_gb = machine["copy_bytes_per_s"] / 1e9
    print(
        f"machine  {machine['device']}, {machine['cores']} cores: product {product_gflops:,.0f} "
        f"GFLOP/s, reading {read_gb:,.1f} GB/s, copying {copy_gb:,.1f} GB/s"
    )

    config = figures["config"]
    print(f"model {config['model']}, {figures['layers']} layers, {config['dtype']}")
    prefill_row = _prefill_row(figures["prefill"])
    decode_rows = [_decode_row(decode) for decode in figures["decode"]]
    _print_columns([(*COLUMNS, COLD_COLUMN), prefill_row, *decode_rows])

    _print_kernels(prefill_row[0], figures["prefill"]["gpu"])
    for row, decode in zip(decode_rows, figures["decode"], strict=True):
        _print_kernels(row[0], decode["gpu"])

    print(f"peak memory of the process {figures['peak_memory_bytes'] / 1e9:.2f} GB")
    if figures["device_peak_bytes"] is not None:
        print(f"peak memory of the device {figures['device_peak_bytes'] / 1e9:.2f} GB")


def _prefill_row(prefill: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"prefill {prefill['rows']}x{prefill['length']}",
        f"{prefill['tokens_per_s']:,.0f}",
        f"{prefill['mfu']:.1%}",
        "",
        f"{prefill['mfu']:.1%}",
        f"{prefill['padding']:.1%}",
        str(prefill["programs"]),
        f"{prefill['first_token_cold_s']:.1f} s",
    )


def _decode_row(decode: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"decode, {decode['slots']} slots",
        f"{decode['tokens_per_s']:,.0f}",
        f"{decode['mfu']:.1%}",
        f"{decode['mbu']:.1%}",
        f"{decode['of_roof']:.1%}",
        "",
        str(decode["programs"]),
        "",
    )


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows with the first column on the left and the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for label, *values in rows:
        cells = [label.ljust(widths[0])]
        for value, width in zip(values, widths[1:], strict=True):
            cells.append(value.rjust(width))
        print(GAP.join(cells).rstrip())


def _print_kernels(title: str, gpu: dict[str, Any] | None) -> None:
    """Prints the times of the kernels that ran on a GPU."""
    if gpu is None:
        return
    print(
        f"{title}: a layer takes {gpu['span_us_per_layer']:,.1f} us, the GPU is busy "
        f"{gpu['busy_us_per_layer']:,.1f} us, {gpu['launches_per_layer']:.1f} launches"
    )
    for kernel in gpu["kernels"]:
        print(
            f"  {kernel['us_per_layer']:9.2f} us  {kernel['launches_per_layer']:6.2f} launches  "
            f"{kernel['name'][:MAX_NAME]}"
        )
