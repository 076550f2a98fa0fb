"""Flags of a plan → estimates of machines, from the rows of data or from random tokens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.engine.config import EngineConfig
from actors.engine.planning.device_profiles import DeviceProfile, load_profile, read_measurement
from actors.engine.planning.sizes import (
    BATCH_TOKENS,
    GPU_SLOTS,
    MAX_BATCHES_IN_FLIGHT,
    REQUESTS_PER_SLOT,
    SizeFlags,
)
from actors.engine.simulation.figures import machine_figures
from actors.engine.simulation.machines import (
    SAMPLED_ROWS,
    SAMPLED_TOKENS,
    DoesNotFit,
    MachineEstimate,
    MachineEstimates,
    Workload,
)
from actors.engine.simulation.schedule import CompletionTokens, longest_completion
from actors.engine.simulation.synthetic import (
    RowLengths,
    SyntheticRows,
    drawn_completions,
    synthetic_rows,
)
from actors.model.config import ModelConfig
from actors.protocol.messages import Request
from actors.protocol.size_buckets import prompt_size_buckets
from jobs.planning.config import GPUS, PlanConfig
from jobs.run.dry_run import Sample, input_sample
from jobs.run.dry_run import machine_estimates as estimates_of_plan
from jobs.run.models import model_config
from jobs.run.plan import make_plan
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig, fill_batches, mean_request_tokens
from pipeline.errors import ConfigError, DatasetError

SEED = 0
# As a run with the most slots chooses them, in `MAX_BATCHES_IN_FLIGHT` batches.
REQUESTS_IN_FLIGHT = REQUESTS_PER_SLOT * max(GPU_SLOTS)
# Rows of the sample that policies are compared by, which takes a minute: their differences are
# smaller than the error of the usual sample.
COMPARED_ROWS = 8 * max(GPU_SLOTS)


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """A run on machines of each kind."""

    rows: Mapping[str, Any]  # figures of the rows, by name
    currency: str
    machines: tuple[MachineEstimate | DoesNotFit, ...]

    def figures(self) -> dict[str, Any]:
        """Returns the plan as values of JSON, by the keys that docs/planning.md lists."""
        return {
            **self.rows,
            "currency": self.currency,
            "machines": [machine_figures(machine) for machine in self.machines],
        }


def machine_plan(config: PlanConfig) -> MachinePlan:
    """Returns the plan of a configuration.

    Raises:
        ConfigError: the rows do not fit the model's context, or a file is not readable.
        DatasetError: the data is not readable, or none of its rows can run.
        ModelError: the model or the measurement is not valid.
    """
    rows, estimates = workload_estimates(config)
    count = float(config.machines)
    machines = [estimates.estimate(profile, machines=count) for profile in gpu_profiles(config)]
    return MachinePlan(rows, config.currency, tuple(machines))


def workload_estimates(config: PlanConfig) -> tuple[dict[str, Any], MachineEstimates]:
    """Returns the figures of the rows of a plan, and the estimates of a run over them.

    Raises:
        ConfigError, DatasetError, ModelError: as `machine_plan`.
    """
    if config.has_data:
        return _of_data(config)
    return _without_data(config)


def gpu_profiles(config: PlanConfig) -> list[DeviceProfile]:
    """Returns the profiles of the GPUs that are compared.

    Raises:
        ConfigError, ModelError: the measurement is not readable or not valid.
    """
    names = GPUS
    if config.gpu is not None:
        names = (config.gpu,)
    return [_profile(config, name) for name in names]


def _of_data(config: PlanConfig) -> tuple[dict[str, Any], MachineEstimates]:
    """Returns the figures of the rows, and the estimates of a run over them."""
    plan = make_plan(config.score_config())
    sample = input_sample(plan, config.row_count or None)
    if not sample.requests:
        raise DatasetError(
            f"--input: none of {sample.sampled_rows:,} sampled rows can run, the first: "
            f"{sample.first_error}"
        )
    completion_tokens: CompletionTokens = longest_completion
    if config.completion_tokens and plan.task.generates:
        completion_tokens = _drawn(config, sample)
    generated = sum(completion_tokens(request) for request in sample.requests)
    rows = sample.figures()
    rows["generated_tokens"] = round(generated * sample.scale)
    return rows, estimates_of_plan(plan, sample, completion_tokens)


def _drawn(config: PlanConfig, sample: Sample) -> CompletionTokens:
    """Returns lengths around --completion-tokens, of at most the max_tokens of each request."""
    lengths = drawn_completions(config.completion_tokens, len(sample.requests), seed=SEED)
    tokens: dict[Any, int] = {}
    for request, length in zip(sample.requests, lengths, strict=True):
        tokens[request.ref] = min(length, longest_completion(request))

    def completion_tokens(request: Request) -> int:
        return tokens[request.ref]

    return completion_tokens


def _without_data(config: PlanConfig) -> tuple[dict[str, Any], MachineEstimates]:
    """Returns the figures of rows of given lengths, and the estimates of a run over them."""
    model = model_config(config.model)
    max_len = config.max_len or model.sequence_len
    mean_row = config.prompt_token_count + config.completion_tokens
    if mean_row >= max_len:
        raise ConfigError(
            f"--prompt-tokens {config.prompt_token_count} and --completion-tokens "
            f"{config.completion_tokens}: expected less than {max_len} together, the context of "
            "the model or --max-len"
        )
    sampled = _sampled_rows(config, model, max_len)

    prompt_sizes = prompt_size_buckets(max_len)
    mean_tokens = mean_request_tokens(sampled.requests, prompt_sizes)
    batch_tokens = math.ceil(REQUESTS_IN_FLIGHT * mean_tokens / MAX_BATCHES_IN_FLIGHT)
    buckets = BucketConfig(prompt_sizes, max(BATCH_TOKENS, batch_tokens))
    batches = [batch.requests for batch in fill_batches(sampled.requests, buckets)]
    scale = config.row_count / len(sampled.requests)
    estimates = MachineEstimates(
        model=model,
        engine=EngineConfig(max_len=max_len, deterministic=config.deterministic),
        workload=Workload(
            batches=batches,
            scale=scale,
            batches_in_flight=MAX_BATCHES_IN_FLIGHT,
            completion_tokens=sampled.tokens_of,
        ),
        flags=SizeFlags(slots=config.slots, prefill_tokens=config.prefill_tokens),
        request_tokens=mean_tokens,
    )
    prompt_tokens = sum(len(request.prompt_ids) for request in sampled.requests)
    rows = {
        "rows": config.row_count,
        "rows_sampled": len(sampled.requests),
        "prompt_tokens": round(prompt_tokens * scale),
        "generated_tokens": round(sum(sampled.completion_tokens) * scale),
    }
    return rows, estimates


def _sampled_rows(config: PlanConfig, model: ModelConfig, max_len: int) -> SyntheticRows:
    lengths = RowLengths(
        prompt_tokens=config.prompt_token_count,
        completion_tokens=config.completion_tokens,
        prefix_tokens=config.prefix_tokens,
        rows_per_prefix=config.rows_per_prefix,
        continuations=config.continuations,
    )
    affordable = max(1, SAMPLED_TOKENS // config.prompt_token_count)
    count = min(SAMPLED_ROWS, affordable, config.row_count)
    if config.policies:
        count = min(COMPARED_ROWS, config.row_count)
    return synthetic_rows(lengths, count, vocab_size=model.vocab_size, seed=SEED, max_len=max_len)


def _profile(config: PlanConfig, name: str) -> DeviceProfile:
    """Returns the profile of a GPU, with the measured times and the price that are given."""
    profile = load_profile(name)
    price = config.cost_per_machine_hour
    if price is not None:
        profile = replace(profile, machine_hour_usd=(price, price))
    if config.measurement is None:
        return profile
    text = storage.read(config.measurement)[0].decode(errors="replace")
    return profile.with_times(read_measurement(text))
