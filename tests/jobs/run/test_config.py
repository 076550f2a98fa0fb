import dataclasses
from typing import Any

import pytest

from actors.protocol.sampling import SamplingParams
from jobs.run.config import RANGES, TASK_FLAGS, ScoreConfig
from pipeline.errors import ConfigError


def config(**flags: Any) -> ScoreConfig:
    values: dict[str, Any] = {"input": "in.parquet", "output": "out", "model": "demo"}
    return ScoreConfig(**(values | flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": None}, "--input is missing"),
        ({"output": ""}, "--output is missing"),
        ({"output": "a\0b"}, r"--output: expected a path .* got 'a\\x00b', which has a null"),
        ({"model": "grok-1"}, "--checkpoint is missing"),
        ({"task": "translate"}, "--task: expected one of generate, .*got 'translate'"),
        ({"task": "score", "n": 2}, "--n: expected 1 for task score"),
        ({"task": "perplexity", "boundary_chars": True}, "--boundary-chars has no effect"),
        ({"task": "generate", "token_logprobs": True}, "--token-logprobs has no effect"),
        (
            {"task": "perplexity", "token_logprobs": True, "logprobs": 5},
            "--logprobs: expected 0 or null, got 5: task perplexity .* --prompt-logprobs K",
        ),
        ({"task": "score", "pool": "mean"}, "--pool has no effect on task score"),
        ({"embedding_dtype": "float16"}, "--embedding-dtype has no effect on task generate"),
        ({"task": "score", "top_k_logprobs": 8}, "--top-k-logprobs has no effect .* --task teach"),
        ({"task": "teach", "token_logprobs": True}, "--token-logprobs has no effect"),
        ({"task": "teach", "prompt_logprobs": 5}, "--prompt-logprobs has no effect on task teach"),
        ({"task": "embed", "prompt_logprobs": 0}, "--prompt-logprobs has no effect on task embed"),
        ({"task": "embed", "token_logprobs": True}, "--token-logprobs has no effect"),
        ({"on_overflow": "window"}, "--on-overflow: task generate cannot split a row"),
        (
            {"task": "score", "on_overflow": "window"},
            "--on-overflow: task score cannot split a row into windows; use truncate-left",
        ),
        (
            {"task": "perplexity", "window_stride": 4},
            "--window-stride has no effect without --on-overflow window",
        ),
        (
            {"task": "perplexity", "on_overflow": "window", "window_stride": 0},
            "--window-stride: expected at least 1, got 0",
        ),
        ({"task": "score", "bits_per_byte": True}, "--bits-per-byte has no effect on task score"),
        (
            {"task": "perplexity", "bits_per_byte": True, "on_overflow": "truncate-left"},
            "--bits-per-byte needs whole texts",
        ),
        ({"cost_budget": 5.0}, "--cost-budget needs --cost-per-replica-hour"),
        ({"max_cost": 5.0}, "--max-cost needs --cost-per-replica-hour"),
        ({"max_replica_hours": -1.0}, "--max-replica-hours: expected at least 0, got -1.0"),
        ({"deadline": "soon"}, "--deadline: expected a duration such as 90m, 8h or 1h30m, or a"),
        ({"temperature": -1.0}, "--temperature"),
    ],
)
def test_config_refuses_missing_and_contradicting_flags(
    flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**flags)


def test_dry_run_needs_no_checkpoint() -> None:
    assert config(model="grok-1", dry_run=True).checkpoint is None


@pytest.mark.parametrize("name", RANGES)
def test_config_refuses_values_below_the_range_of_the_flag(name: str) -> None:
    low, _ = RANGES[name]
    # A budget is valid only beside a price.
    needed: dict[str, Any] = {"cost_per_replica_hour": 1.0}
    if name in TASK_FLAGS:
        needed["task"] = TASK_FLAGS[name][0]

    config(**{**needed, name: low})
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: expected"):
        config(**{**needed, name: low - 1})


def test_config_refuses_error_rates_above_one() -> None:
    with pytest.raises(ConfigError, match=r"--max-error-rate: expected from 0 to 1, got 1\.5"):
        config(max_error_rate=1.5)


@pytest.mark.parametrize(("text", "expected"), [("3", (3, 3)), ("2:8", (2, 8))])
def test_replica_range_without_max_is_fixed(text: str, expected: tuple[int, int]) -> None:
    assert config(replicas=text).replica_range() == expected


@pytest.mark.parametrize("text", ["0", "3:2", "2-8", "1:", ""])
def test_replica_range_refuses_invalid_values(text: str) -> None:
    with pytest.raises(ConfigError, match="--replicas: expected"):
        config(replicas=text)


def test_mesh_shape_depends_on_the_model_by_default() -> None:
    assert config().mesh_shape() == (1, 1)
    assert config(model="grok-1", checkpoint="ckpt-0").mesh_shape() == (1, 8)
    assert config(mesh="2x4").mesh_shape() == (2, 4)


@pytest.mark.parametrize("text", ["0x1", "1x0", "8", "1x", "1x2x4"])
def test_mesh_shape_refuses_invalid_values(text: str) -> None:
    with pytest.raises(ConfigError, match="--mesh: expected"):
        config(mesh=text)


def test_partition_pair_is_index_and_count() -> None:
    assert config(partition="3/4").partition_pair() == (3, 4)


@pytest.mark.parametrize("text", ["4/4", "1", "0/0", "-1/4"])
def test_partition_pair_refuses_invalid_values(text: str) -> None:
    with pytest.raises(ConfigError, match="--partition: expected"):
        config(partition=text)


def test_sampling_params_are_those_of_the_flags() -> None:
    params = config(temperature=0.5, max_tokens=9, stop=("end",)).sampling_params()

    expected = dataclasses.replace(SamplingParams(), temperature=0.5, max_tokens=9, stop=("end",))
    assert params == expected
