"""Prints the figures of the engine benchmark."""

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("measured", "tokens/s", "MFU", "MBU", "of roof", "padding", "programs")
COLD_COLUMN = "first token, cold"


def print_figures(figures: dict[str, Any]) -> None:
    """Prints machine, prefill, decode and peak memory."""
    machine = figures["machine"]
    product_gflops = machine["product_flops_per_s"] / 1e9
    read_gb = machine["read_bytes_per_s"] / 1e9
    print(
        f"machine  {machine['device']}, {machine['cores']} cores: product {product_gflops:,.0f} "
        f"GFLOP/s, reading {read_gb:,.1f} GB/s"
    )

    config = figures["config"]
    table = Table(title=f"model {config['model']}, {config['dtype']}", title_justify="left")
    for name in (*COLUMNS, COLD_COLUMN):
        table.add_column(name, justify="right")
    table.add_row(*_prefill_row(figures["prefill"]))
    for decode in figures["decode"]:
        table.add_row(*_decode_row(decode))
    Console().print(table)

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
