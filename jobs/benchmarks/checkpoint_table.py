"""Prints the figures of the checkpoint benchmark as a Markdown table.

A row is the median of its rounds. "of the disk" is the median of the ratios within a round, since a
shared machine is not equally fast in every round.
"""

import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

HEADER = (
    "| layout | mesh | load, GB/s | disk, GB/s | of the disk (all rounds) | CPU s per GB | "
    "host beyond arrays, GB |"
)
NOT_MEASURED = "–"


@dataclass(frozen=True)
class Load:
    """One load of a checkpoint."""

    layout: str
    mesh: str
    figures: dict[str, Any]  # of `measure_load`
    disk_bytes_per_s: float | None  # sequential rate in the same round; None for object storage

    @property
    def bytes_per_s(self) -> float:
        """Bytes of arrays per second of loading."""
        rate: float = self.figures["arrays"] / self.figures["seconds"]
        return rate


def print_table(loads: Iterable[Load]) -> None:
    """Prints a line on standard error for each load, and the table at the end."""
    rounds: dict[tuple[str, str], list[Load]] = {}
    for load in loads:
        rounds.setdefault((load.layout, load.mesh), []).append(load)
        line = f"  {load.layout} {load.mesh}: {load.bytes_per_s / 1e9:.2f} GB/s"
        print(line, file=sys.stderr, flush=True)

    print(HEADER)
    print("|---|---|---|---|---|---|---|")
    for (layout, mesh), loads_of_row in rounds.items():
        print(f"| {layout} | {mesh} | {_cells(loads_of_row)} |")


def _cells(loads: Sequence[Load]) -> str:
    rate = statistics.median(load.bytes_per_s for load in loads)
    cpu_s_per_gb = statistics.median(
        load.figures["cpu_s"] / load.figures["arrays"] * 1e9 for load in loads
    )
    beyond = max(load.figures["beyond"] for load in loads)
    disk_text, ratio_text = _disk_cells(loads)
    return (
        f"{rate / 1e9:.2f} | {disk_text} | {ratio_text} | {cpu_s_per_gb:.2f} | {beyond / 1e9:.2f}"
    )


def _disk_cells(loads: Sequence[Load]) -> tuple[str, str]:
    """Returns the disk's rate and the share of it that loading reached."""
    disk_rates: list[float] = []
    ratios: list[float] = []
    for load in loads:
        if load.disk_bytes_per_s is not None:
            disk_rates.append(load.disk_bytes_per_s)
            ratios.append(load.bytes_per_s / load.disk_bytes_per_s)
    if not ratios:
        return NOT_MEASURED, NOT_MEASURED

    all_ratios = ", ".join(f"{ratio:.0%}" for ratio in ratios)
    return (
        f"{statistics.median(disk_rates) / 1e9:.2f}",
        f"{statistics.median(ratios):.0%} ({all_ratios})",
    )
