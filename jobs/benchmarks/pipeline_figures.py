"""The figures of the pipeline benchmark, and their table."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.protocol.messages import ReplicaStats
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_prompts import plan_requests
from jobs.benchmarks.prefix_gain import ideal_gain, sequences
from jobs.run.plan import Plan

ACTIVITIES = ("prefill", "decode", "between calls", "without work")
LABELS = {"engine": "engine alone", "pipeline": "Parquet to Parquet"}
COLUMNS = ("", "tokens/s", "computed", "gain", "of ideal", "padding", "decode rows used")


@dataclass(frozen=True)
class Pass:
    """One pass over the prompts."""

    seconds: float  # without compilation
    stats: ReplicaStats  # increase of the counters

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens and generated ones, computed or cached."""
        return (self.stats.prompt_tokens + self.stats.generated_tokens) / self.seconds

    def seconds_by_activity(self) -> dict[str, float]:
        """Returns the seconds by what the engine was doing."""
        stats = self.stats
        return {
            "prefill": stats.prefill_s,
            "decode": stats.decode_s,
            "between calls": stats.busy_s - stats.prefill_s - stats.decode_s,
            "without work": self.seconds - stats.busy_s,
        }


def figures(
    config: PipelineBenchmarkConfig,
    plan: Plan,
    pipeline_passes: Sequence[Pass],
    engine_passes: Sequence[Pass],
) -> dict[str, Any]:
    """Returns all figures; `plan` is that of the last pass."""
    page_size = plan.engine_config().page_size
    last_is_read = not plan.task.generates
    computed = sequences(plan_requests(plan))
    tokens = sum(map(len, computed))

    efficiency = []
    for pipeline_pass, engine_pass in zip(pipeline_passes, engine_passes, strict=True):
        efficiency.append(pipeline_pass.tokens_per_s / engine_pass.tokens_per_s)

    flags = asdict(config)
    del flags["folder"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "config": flags,
        "rows": plan.own_row_count,
        "tokens": tokens,
        "ideal_gain": {
            "page": page_size,
            "pages": ideal_gain(computed, page_size, last_is_read=last_is_read),
            "tokens": ideal_gain(computed, 1, last_is_read=last_is_read),
        },
        "efficiency": efficiency,
        "pipeline": _pass_figures(pipeline_passes, tokens),
        "engine": _pass_figures(engine_passes, tokens),
    }


def _pass_figures(passes: Sequence[Pass], tokens: int) -> dict[str, Any]:
    """Returns medians of times and the counters of the last pass."""
    stats = passes[-1].stats
    seconds: list[float] = []
    tokens_per_s: list[float] = []
    activity_seconds: dict[str, list[float]] = {}
    for measured_pass in passes:
        seconds.append(measured_pass.seconds)
        tokens_per_s.append(measured_pass.tokens_per_s)
        for activity, activity_s in measured_pass.seconds_by_activity().items():
            activity_seconds.setdefault(activity, []).append(activity_s)

    times: dict[str, float] = {}
    for activity in ACTIVITIES:
        times[activity] = statistics.median(activity_seconds[activity])

    rows_used = None
    if stats.decode_positions:
        rows_used = stats.generated_tokens / stats.decode_positions
    return {
        "seconds": statistics.median(seconds),
        "tokens_per_s": statistics.median(tokens_per_s),
        "prefill_tokens": stats.prefill_tokens,
        "extend_tokens": stats.prefill_tokens,  # deprecated key
        "gain": tokens / stats.prefill_tokens,
        "padding": 1 - stats.prefill_tokens / stats.prefill_positions,
        "decode_rows_used": rows_used,
        "compile_s": stats.compile_s,
        "calls": {
            "prefill": stats.prefill_calls,
            "decode": stats.decode_calls,
            "extend": stats.prefill_calls,  # deprecated key
        },
        "time": {**times, "extend": times["prefill"]},  # deprecated key
    }


def print_figures(values: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    ideal = values["ideal_gain"]
    config = values["config"]
    print(
        f"{config['input']}: {values['rows']:,} rows, {values['tokens']:,} tokens to compute, "
        f"model {config['model']}"
    )
    print(
        f"ideal gain {ideal['pages']:.2f} with pages of {ideal['page']} tokens, "
        f"{ideal['tokens']:.2f} token by token"
    )

    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for key, label in LABELS.items():
        table.add_row(label, *_cells(values[key], ideal["pages"]))
    Console().print(table)
    for key, label in LABELS.items():
        print(f"{label}: {_activity_text(values[key])}")

    ratios = ", ".join(f"{ratio:.1%}" for ratio in values["efficiency"])
    median = statistics.median(values["efficiency"])
    print(f"Parquet to Parquet reaches {median:.1%} of the engine alone ({ratios})")


def _cells(pass_figures: dict[str, Any], ideal: float) -> tuple[str, ...]:
    rows_used = ""
    if pass_figures["decode_rows_used"] is not None:
        rows_used = f"{pass_figures['decode_rows_used']:.1%}"
    return (
        f"{pass_figures['tokens_per_s']:,.0f}",
        f"{pass_figures['prefill_tokens']:,}",
        f"{pass_figures['gain']:.2f}",
        f"{pass_figures['gain'] / ideal:.0%}",
        f"{pass_figures['padding']:.1%}",
        rows_used,
    )


def _activity_text(pass_figures: dict[str, Any]) -> str:
    seconds = pass_figures["time"]
    calls = pass_figures["calls"]
    activities = ", ".join(f"{name} {seconds[name]:.2f}" for name in ACTIVITIES)
    return (
        f"seconds of the engine {activities}; calls {calls['prefill']} prefill, "
        f"{calls['decode']} decode"
    )
