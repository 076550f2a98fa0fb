from typing import Any

import pytest

from jobs.planning.config import GPUS, PlanConfig
from pipeline.errors import ConfigError

ROWS: dict[str, Any] = {"rows": 1e6, "prompt_tokens": 800}


def test_plan_needs_rows_and_the_length_of_prompts() -> None:
    with pytest.raises(ConfigError, match="--rows"):
        PlanConfig(prompt_tokens=800)
    with pytest.raises(ConfigError, match="--prompt-tokens"):
        PlanConfig(rows=10.0)


def test_plan_of_data_needs_no_lengths() -> None:
    config = PlanConfig(input="rows.parquet", completion_tokens=20, slots=8)

    assert (config.has_data, config.row_count) == (True, 0)
    main_job = config.score_config()
    assert (main_job.max_tokens, main_job.slots, main_job.prefill_tokens) == (60, 8, "auto")
    assert main_job.dry_run


def test_plan_counts_are_whole_numbers() -> None:
    config = PlanConfig(**ROWS)

    assert (config.row_count, config.prompt_token_count) == (1_000_000, 800)


def test_plan_offers_all_machines_for_rent() -> None:
    assert GPUS == ("a100-80", "b200", "h100", "h200")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rows": 0.5}, "--rows: expected at least 1, got 0.5"),
        ({"continuations": 0}, "--continuations: expected at least 1"),
        ({"completion_tokens": -1}, "--completion-tokens: expected at least 0"),
        ({"prefix_tokens": 800}, "--prefix-tokens: expected less than --prompt-tokens 800"),
        ({"gpu": "h900"}, "--gpu: expected one of a100-80, b200, h100, h200, got 'h900'"),
        ({"measurement": "times.json"}, "--measurement needs --gpu"),
        ({"policies": True, "slots": 8}, "--slots has no effect: --policies compares"),
        ({"policies": True, "deterministic": True}, "--deterministic has no effect"),
        ({"machines": 0}, "--machines: expected at least 1"),
        ({"cost_per_machine_hour": 9.0}, "--cost-per-machine-hour needs --gpu"),
        ({"currency": "EUR"}, "--currency EUR: usual prices are in USD"),
        ({"limit": 3}, "--limit has no effect: there is no --input"),
        ({"input": "x.parquet"}, "--prompt-tokens has no effect: --input has the lengths"),
    ],
)
def test_plan_rejects_invalid_flags(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlanConfig(**(ROWS | flags))
