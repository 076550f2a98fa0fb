from pathlib import Path
from typing import Any

import pytest

from actors.protocol.messages import ReplicaStats
from jobs.benchmarks.pipeline_config import PipelineBenchmarkConfig
from jobs.benchmarks.pipeline_figures import ACTIVITIES, Pass, figures, print_figures
from jobs.run.plan import Plan
from tests.jobs.run.plans import PROMPT, demo_plan

STATS = ReplicaStats(
    prompt_tokens=32,
    generated_tokens=8,
    prefill_tokens=14,
    prefill_positions=20,
    prefill_calls=2,
    decode_positions=16,
    decode_calls=4,
    prefill_s=1.0,
    decode_s=2.0,
    busy_s=3.5,
    compile_s=0.5,
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return demo_plan(tmp_path, [PROMPT] * 4)


@pytest.fixture
def values(plan: Plan, tmp_path: Path) -> dict[str, Any]:
    config = PipelineBenchmarkConfig(
        input="rows.parquet", tokenizer="tokenizer.model", folder=str(tmp_path / "benchmark")
    )
    pipeline_passes = [Pass(seconds, STATS) for seconds in (8.0, 5.0, 4.0)]
    engine_passes = [Pass(4.0, STATS)] * 3
    return figures(config, plan, pipeline_passes, engine_passes)


def test_pass_rate_counts_prompt_and_generated_tokens() -> None:
    assert Pass(4.0, STATS).tokens_per_s == (32 + 8) / 4.0


def test_pass_activities_add_up_to_its_time_without_compilation() -> None:
    seconds = Pass(4.0, STATS).seconds_by_activity()

    assert seconds == {"prefill": 1.0, "decode": 2.0, "between calls": 0.5, "without work": 0.5}
    assert sum(seconds.values()) == 4.0
    assert tuple(seconds) == ACTIVITIES


def test_figures_are_medians_of_times_and_counters_of_the_last_pass(
    values: dict[str, Any],
) -> None:
    pipeline = values["pipeline"]

    assert values["efficiency"] == [0.5, 0.8, 1.0]
    assert (pipeline["seconds"], pipeline["tokens_per_s"]) == (5.0, 8.0)
    assert pipeline["padding"] == pytest.approx(1 - 14 / 20)
    assert pipeline["decode_rows_used"] == 8 / 16
    assert pipeline["time"]["without work"] == 5.0 - 3.5
    assert pipeline["calls"]["prefill"] == 2
    # Decode computes the last of the eight tokens of each of the four prompts.
    assert values["tokens"] == 4 * 7
    assert pipeline["gain"] == 28 / 14
    # Token by token, four equal prompts are computed once.
    assert values["ideal_gain"]["tokens"] == 4.0
    assert "folder" not in values["config"]


def test_figures_without_decode_have_no_share_of_rows(plan: Plan, tmp_path: Path) -> None:
    config = PipelineBenchmarkConfig(
        input="rows.parquet", tokenizer="tokenizer.model", folder=str(tmp_path / "benchmark")
    )
    scored = [Pass(4.0, ReplicaStats(prompt_tokens=32, prefill_tokens=14, prefill_positions=20))]

    assert figures(config, plan, scored, scored)["engine"]["decode_rows_used"] is None


def test_table_compares_pipeline_and_engine(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    print_figures(values)

    output = capsys.readouterr().out
    assert "rows.parquet: 4 rows, 28 tokens to compute, model small" in output
    assert "4.00 token by token" in output
    assert "Parquet to Parquet reaches 80.0% of the engine alone (50.0%, 80.0%, 100.0%)" in output
    [row] = [line for line in output.splitlines() if "engine alone │" in line]
    assert [cell.strip() for cell in row.split("│")[2:5]] == ["10", "14", "2.00"]
    assert "prefill 1.00, decode 2.00, between calls 0.50, without work 0.50" in output
    assert "calls 2 prefill, 4 decode" in output
