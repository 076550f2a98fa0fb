import io
from typing import Any

from rich.console import Console

from jobs.evaluation.demo_table import demo_table

COMPARISON: dict[str, Any] = {
    "task": "demo_mmlu",
    "metric": "exact_match,strict-match",
    "before": 0.5,
    "now": 0.25,
    "difference": -0.25,
    "interval": [-0.4, -0.1],
    "documents": 1200,
    "regression": True,
}


def lines_of(*comparisons: dict[str, Any]) -> list[str]:
    stream = io.StringIO()
    Console(width=80, file=stream).print(demo_table({"comparisons": list(comparisons)}))
    return stream.getvalue().splitlines()


def test_demo_table_has_both_runs_and_fits_a_terminal() -> None:
    lines = lines_of(COMPARISON)

    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for value in ("demo_mmlu", "exact_match,strict-match", "0.500", "0.250"):
        assert value in text
    assert "-0.25 [-0.40, -0.10] worse" in text


def test_demo_table_lists_a_metric_once() -> None:
    best: dict[str, Any] = COMPARISON | {"regression": False, "before": 0.9}

    assert "0.900" not in "\n".join(lines_of(COMPARISON, best))
