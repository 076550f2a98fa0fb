"""The results of both runs of `evaluate --demo` as a table of a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from jobs.evaluation.config import DEMO_DTYPES


def demo_table(metrics: Mapping[str, Any]) -> Table:
    """Returns the metrics of both runs, their differences and whether these are significant.

    Args:
        metrics: content of metrics.json of the second run, which compares it with the first one.
    """
    title = "results of both runs (higher is better)"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("metric", overflow="fold")
    for name in DEMO_DTYPES:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("difference, 95 %", no_wrap=True)

    listed: set[tuple[str, str]] = set()
    for comparison in metrics["comparisons"]:
        key = (comparison["task"], comparison["metric"])
        if key in listed:  # against the best run, where that is another one than the last
            continue
        listed.add(key)
        low, high = comparison["interval"]
        verdict = " worse" if comparison["regression"] else ""
        table.add_row(
            *key,
            f"{comparison['before']:.3f}",
            f"{comparison['now']:.3f}",
            f"{comparison['difference']:+.2f} [{low:+.2f}, {high:+.2f}]{verdict}",
        )
    return table
