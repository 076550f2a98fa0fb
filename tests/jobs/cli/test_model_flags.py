import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from actors.protocol.sampling import SamplingParams
from jobs.cli.model_flags import ModelFlags
from jobs.run.config import ScoreConfig
from jobs.synthesis.config import GenerateConfig
from pipeline.errors import ConfigError

# A value other than the default for each flag that an evaluation can set.
VALUES: dict[str, Any] = {
    "model": "demo",
    "checkpoint": "ckpt-0",
    "tokenizer": "tokenizer.model",
    "dtype": "float32",
    "replicas": "2:3",
    "mesh": "1x2",
    "shard_activations": True,
    "device": "cpu",
    "batch_tokens": 64,
    "slots": 16,
    "prefill_tokens": 32,
    "deterministic": True,
    "max_len": 32,
    "shard_rows": 7,
    "on_overflow": "truncate-left",
    "resume": "never",
    "retry_failed": True,
    "max_error_rate": 0.5,
    "max_attempts": 2,
    "step_timeout_s": 60.0,
    "cost_per_replica_hour": 2.0,
    "cost_budget": 9.0,
    "max_cost": 10.0,
    "max_replica_hours": 4.0,
    "deadline": "2h",
    "log_format": "json",
}


@dataclass(frozen=True)
class JobFlags(ModelFlags):
    limit: int = 3  # a flag of the job itself, which the main job also has


def test_model_flags_are_those_of_the_main_job() -> None:
    main_job = {field.name: field for field in dataclasses.fields(ScoreConfig)}
    for field in dataclasses.fields(ModelFlags):
        assert field.default == main_job[field.name].default
        assert field.type == main_job[field.name].type
        assert field.metadata == main_job[field.name].metadata
    assert issubclass(GenerateConfig, SamplingParams)


def test_score_config_takes_over_every_model_flag() -> None:
    assert set(VALUES) == {field.name for field in dataclasses.fields(ModelFlags)}

    config = ModelFlags(**VALUES).score_config("generate", "in.parquet", "out", temperature=0.5)

    assert {name: getattr(config, name) for name in VALUES} == VALUES
    assert (config.input, config.output, config.task) == ("in.parquet", "out", "generate")
    assert config.temperature == 0.5


def test_score_config_leaves_out_flags_of_the_job_itself() -> None:
    assert JobFlags(model="demo").score_config("score", "in.parquet", "out").limit is None


def test_score_config_refuses_flags_out_of_range() -> None:
    with pytest.raises(ConfigError, match="--shard-rows: expected at least 1, got 0"):
        ModelFlags(model="demo", shard_rows=0).score_config("score", "in.parquet", "out")
