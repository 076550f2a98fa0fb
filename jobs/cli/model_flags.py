"""Flags of the main job that other jobs share: model, machines, resume and cost."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from jobs.run.config import ScoreConfig

_OF_MAIN_JOB = {field.name: field for field in dataclasses.fields(ScoreConfig)}


def _same(name: str) -> Any:
    """Returns a flag of the main job: the same default and help."""
    return dataclasses.field(
        default=_OF_MAIN_JOB[name].default, metadata=_OF_MAIN_JOB[name].metadata
    )


@dataclass(frozen=True)
class ModelFlags:
    """Flags of the main job that choose the model and the machines."""

    model: str = _same("model")
    checkpoint: str | None = _same("checkpoint")
    tokenizer: str | None = _same("tokenizer")
    dtype: Literal["bfloat16", "float32"] = _same("dtype")
    replicas: str = _same("replicas")
    mesh: str | None = _same("mesh")
    shard_activations: bool = _same("shard_activations")
    device: Literal["auto", "cpu", "gpu"] = _same("device")
    batch_tokens: int | Literal["auto"] = _same("batch_tokens")
    slots: int | Literal["auto"] = _same("slots")
    prefill_tokens: int | Literal["auto"] = _same("prefill_tokens")
    deterministic: bool = _same("deterministic")
    max_len: int | None = _same("max_len")
    shard_rows: int = _same("shard_rows")
    on_overflow: Literal["error", "truncate-left", "window"] = _same("on_overflow")
    resume: Literal["auto", "never", "require"] = _same("resume")
    retry_failed: bool = _same("retry_failed")
    max_error_rate: float = _same("max_error_rate")
    max_attempts: int = _same("max_attempts")
    step_timeout_s: float = _same("step_timeout_s")
    cost_per_replica_hour: float | None = _same("cost_per_replica_hour")
    cost_budget: float | None = _same("cost_budget")
    max_cost: float | None = _same("max_cost")
    max_replica_hours: float | None = _same("max_replica_hours")
    deadline: str | None = _same("deadline")
    log_format: Literal["text", "json"] = _same("log_format")

    def score_config(
        self,
        task: Literal["generate", "score"],
        requests_url: str,
        output_url: str,
        **sampling: Any,
    ) -> ScoreConfig:
        """Returns the configuration of the main job for request rows.

        `sampling`: flags that rows do not have of their own.

        Raises:
            ConfigError: its flags do not fit.
        """
        return ScoreConfig(
            input=requests_url,
            output=output_url,
            task=task,
            **_values(self, ModelFlags),
            **sampling,
        )


def _values(flags: object, flags_class: type[Any]) -> dict[str, Any]:
    """Returns the values of the fields that `flags_class` declares."""
    return {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags_class)}
