"""Flags of the plan without data → estimates of machines, from requests with random tokens."""

import math

from actors.engine.config import EngineConfig
from actors.engine.planning.device_profiles import DeviceProfile, load_profile, read_measurement
from actors.engine.planning.sizes import (
    BATCH_TOKENS,
    GPU_SLOTS,
    MAX_BATCHES_IN_FLIGHT,
    REQUESTS_PER_SLOT,
    SizeFlags,
)
from actors.engine.simulation.machines import (
    SAMPLED_ROWS,
    SAMPLED_TOKENS,
    DoesNotFit,
    MachineEstimate,
    MachineEstimates,
    Workload,
)
from actors.engine.simulation.synthetic import RowLengths, SyntheticRows, synthetic_rows
from actors.model.config import ModelConfig
from actors.protocol.size_buckets import prompt_size_buckets
from jobs.planning.config import GPUS, PlanConfig
from jobs.run.models import model_config
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig, fill_batches, mean_request_tokens
from pipeline.errors import ConfigError

SEED = 0
# As a run with the most slots chooses them, in `MAX_BATCHES_IN_FLIGHT` batches.
REQUESTS_IN_FLIGHT = REQUESTS_PER_SLOT * max(GPU_SLOTS)


def machine_estimates(config: PlanConfig) -> list[MachineEstimate | DoesNotFit]:
    """Returns the estimate of each kind of machine.

    Raises:
        ConfigError: the rows do not fit the model's context, or the measurement is not readable.
        ModelError: the model or the measurement is not valid.
    """
    model = model_config(config.model)
    max_len = config.max_len or model.sequence_len
    mean_row = config.prompt_token_count + config.completion_tokens
    if mean_row >= max_len:
        raise ConfigError(
            f"--prompt-tokens {config.prompt_token_count} and --completion-tokens "
            f"{config.completion_tokens}: expected less than {max_len} together, the context of "
            "the model or --max-len"
        )
    rows = _sampled_rows(config, model, max_len)

    prompt_sizes = prompt_size_buckets(max_len)
    mean_tokens = mean_request_tokens(rows.requests, prompt_sizes)
    batch_tokens = math.ceil(REQUESTS_IN_FLIGHT * mean_tokens / MAX_BATCHES_IN_FLIGHT)
    buckets = BucketConfig(prompt_sizes, max(BATCH_TOKENS, batch_tokens))
    batches = [batch.requests for batch in fill_batches(rows.requests, buckets)]
    estimates = MachineEstimates(
        model=model,
        engine=EngineConfig(max_len=max_len),
        workload=Workload(
            batches=batches,
            scale=config.row_count / len(rows.requests),
            batches_in_flight=MAX_BATCHES_IN_FLIGHT,
            completion_tokens=rows.tokens_of,
        ),
        flags=SizeFlags(slots=config.slots, prefill_tokens=config.prefill_tokens),
        request_tokens=mean_tokens,
    )
    names = GPUS
    if config.gpu is not None:
        names = (config.gpu,)
    return [estimates.estimate(_profile(config, name)) for name in names]


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
    return synthetic_rows(lengths, count, vocab_size=model.vocab_size, seed=SEED, max_len=max_len)


def _profile(config: PlanConfig, name: str) -> DeviceProfile:
    """Returns the profile of a GPU, with the measured times where a measurement is given."""
    profile = load_profile(name)
    if config.measurement is None:
        return profile
    text = storage.read(config.measurement)[0].decode(errors="replace")
    return profile.with_times(read_measurement(text))
