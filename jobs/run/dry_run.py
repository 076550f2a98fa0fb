"""Estimates rows, tokens, padding, memory per device, time and cost of a planned run.

Starts no replica and loads no weights.

Tokens and padding are measured on a sample of the rows, spread over the input, which goes through
the stages that a run uses. Memory follows from the model's shapes. Time follows from arithmetic and
a stated guess of the hardware; it is an estimate. For GPUs, a simulation of the engine's scheduler
adds hours and cost for each kind of machine.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from actors.engine.planning.device_profiles import load_profile
from actors.engine.planning.sizes import (
    SizeFlags,
    affordable_tokens,
    cache_bytes_per_token,
    cache_tokens,
)
from actors.engine.simulation.figures import machine_details, machine_figures, machine_table
from actors.engine.simulation.machines import (
    SAMPLED_ROWS,
    SAMPLED_TOKENS,
    MachineEstimates,
    Workload,
)
from actors.model import arithmetic
from actors.model.config import parameter_shapes
from actors.protocol.messages import Request
from actors.protocol.size_buckets import padded_length, prompt_size_buckets
from jobs.run.plan import ITEMSIZES, Plan
from pipeline.dispatch.buckets import fill_batches, mean_request_tokens
from pipeline.requests.sample import SAMPLED_SHARDS, sample_requests

GPUS = ("h100", "h200", "a100-80", "b200")
# Why there are not more slots, by `EngineSizes.slot_limit`.
SLOT_LIMITS = {
    "flag": "--slots",
    "cpu": "the processor: more rows take as much longer",
    "kv_cache": "the KV cache, or the input is not known",
    "products": "the arithmetic of the GPU: more rows take as much longer",
}


@dataclass(frozen=True, slots=True)
class Device:
    """Assumed rates of one device: FLOP/s in matrix products and bytes/s from memory."""

    name: str
    flops_per_s: float
    bytes_per_s: float


# Shares of the peak that large matrix products and reads from memory typically reach.
H100 = Device("H100", 0.5 * 989e12, 0.7 * 3.35e12)
CPU = Device("CPU core pair", 2e11, 2e10)


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of a sample of the rows."""

    rows: int
    failed: int
    prompt_tokens: int  # prompts and continuations
    new_tokens: int  # at most: max_tokens of every sample
    padded_tokens: int  # prompts and continuations in whole blocks
    batches: int


def estimate(plan: Plan) -> dict[str, object]:
    """Returns the plan's figures by name, ready to be printed or stored."""
    sample = _sample(plan)
    rows = plan.own_row_count
    scale = rows / sample.rows
    memory = device_bytes(plan)
    runs_on_cpu = plan.config.device == "cpu" or plan.config.model == "demo"
    device = H100
    if runs_on_cpu:
        device = CPU
    replica_hours = _seconds(plan, sample, scale, device) / 3600
    replicas = plan.config.replica_range()[1]

    padding = 0.0
    if sample.padded_tokens:
        padding = 1 - sample.prompt_tokens / sample.padded_tokens
    cost = None
    if plan.config.cost_per_replica_hour is not None:
        cost = replica_hours * plan.config.cost_per_replica_hour
    return {
        "rows": rows,
        "shards": len(plan.own_shards),
        "rows_sampled": sample.rows,
        "rows_failing": round(sample.failed * scale),
        "prompt_tokens": round(sample.prompt_tokens * scale),
        "new_tokens_at_most": round(sample.new_tokens * scale),
        "padding": padding,
        "batches": math.ceil(sample.batches * scale),
        **_size_figures(plan),
        "device_bytes": memory,
        "device_bytes_total": sum(memory.values()),
        "device_assumed": device.name,
        "replicas": replicas,
        "hours": replica_hours / replicas,
        "replica_hours": replica_hours,
        "cost": cost,
    }


def device_bytes(plan: Plan) -> Mapping[str, int]:
    """Returns the bytes of weights and of the KV cache on one device.

    Weights are int8 with scales; the KV cache holds what the slots can fill, or what memory allows
    if that is less.
    """
    itemsize = ITEMSIZES[plan.config.dtype]
    model_shards = plan.devices.model_shards
    token_bytes = cache_bytes_per_token(plan.model, model_shards, itemsize)
    return {
        "weights": arithmetic.device_weight_bytes(plan.model, model_shards),
        "kv_cache": _cache_tokens(plan) * token_bytes,
    }


def _cache_tokens(plan: Plan) -> int:
    """Returns the tokens of KV cache of one data shard."""
    affordable = affordable_tokens(plan.model, plan.devices, ITEMSIZES[plan.config.dtype])
    return cache_tokens(plan.engine_config(), plan.devices.data_shards, affordable)


def _size_figures(plan: Plan) -> dict[str, object]:
    """Returns the sizes of engines and batches, and why there are not more slots."""
    sizes = plan.sizes
    data_shards = plan.devices.data_shards
    return {
        "slots": sizes.slots * data_shards,
        "slots_limited_by": SLOT_LIMITS[sizes.slot_limit],
        "kv_tokens": _cache_tokens(plan) * data_shards,
        "prefill_tokens": sizes.prefill_tokens,
        "batch_tokens": sizes.batch_tokens,
        "batches_in_flight": sizes.batches_in_flight,
    }


def machine_lines(plan: Plan) -> Iterator[str]:
    """Yields hours and cost of the run on each kind of machine, simulated on a sample of its rows.

    Every completion is as long as its max_tokens.
    """
    sampled_shards = max(1, min(SAMPLED_SHARDS, len(plan.own_shards)))
    sample = sample_requests(
        plan.own_shards,
        plan.schema,
        plan.task,
        plan.tokenizer,
        plan.rules,
        rows_of_shard=math.ceil(SAMPLED_ROWS / sampled_shards),
    )
    if not sample.requests:
        return
    requests = _first_requests(sample.requests)
    slots = None
    if plan.sizes.slot_limit == "flag":
        slots = plan.sizes.slots

    requests_of_run = len(sample.requests) * plan.own_row_count / sample.rows
    estimates = MachineEstimates(
        model=plan.model,
        engine=plan.engine_config(),
        workload=Workload(
            batches=[batch.requests for batch in fill_batches(requests, plan.bucket_config())],
            scale=requests_of_run / len(requests),
            batches_in_flight=plan.sizes.batches_in_flight,
        ),
        flags=SizeFlags(slots=slots, prefill_tokens=plan.sizes.prefill_tokens),
        request_tokens=mean_request_tokens(requests, prompt_size_buckets(plan.rules.max_len)),
        itemsize=ITEMSIZES[plan.config.dtype],
    )
    machines = [machine_figures(estimates.estimate(load_profile(name))) for name in GPUS]
    yield ""
    yield f"simulated on {len(requests):,} requests, for one machine of each kind"
    yield from machine_table(machines)
    yield from machine_details(machines)


def _first_requests(requests: Sequence[Request]) -> list[Request]:
    """Returns the first requests, at least one, of `SAMPLED_TOKENS` tokens at most."""
    first: list[Request] = []
    tokens = 0
    for request in requests:
        tokens += request.longest
        if first and tokens > SAMPLED_TOKENS:
            break
        first.append(request)
    return first


def _sample(plan: Plan) -> Sample:
    sample = sample_requests(plan.own_shards, plan.schema, plan.task, plan.tokenizer, plan.rules)
    if sample.unreadable is not None:
        raise sample.unreadable

    lengths: list[int] = []
    new_tokens = 0
    for request in sample.requests:
        lengths.append(len(request.prompt_ids))
        lengths += [len(ids) for ids in request.continuations]
        if request.sampling is not None:
            new_tokens += request.sampling.max_tokens
    return Sample(
        rows=sample.rows,
        failed=sample.failed,
        prompt_tokens=sum(lengths),
        new_tokens=new_tokens,
        padded_tokens=sum(padded_length(length) for length in lengths),
        batches=len(list(fill_batches(sample.requests, plan.bucket_config()))),
    )


def _seconds(plan: Plan, sample: Sample, scale: float, device: Device) -> float:
    """Returns the seconds of one replica.

    Prefill is bound by arithmetic, decode by reading weights and cache.
    """
    devices = math.prod(plan.config.mesh_shape())
    flops = 2 * _active_parameters(plan) * sample.padded_tokens * scale
    prefill_s = flops / (device.flops_per_s * devices)

    slots = plan.engine_config().slots
    rows = max(1, sample.rows - sample.failed)
    mean_length = (sample.prompt_tokens + sample.new_tokens / 2) / rows
    cache_bytes = slots * mean_length * arithmetic.cache_bytes(plan.model, 2)
    step_bytes = parameter_shapes(plan.model).stored_bytes + cache_bytes
    steps = sample.new_tokens * scale / slots
    decode_s = steps * step_bytes / (device.bytes_per_s * devices)
    return prefill_s + decode_s


def _active_parameters(plan: Plan) -> float:
    """Returns the number of parameters that a token uses."""
    expert_share = plan.model.num_selected_experts / plan.model.num_experts
    active = 0.0
    for tensor in parameter_shapes(plan.model):
        parameters: float = math.prod(tensor.shape)
        if "experts" in tensor.axes:
            parameters *= expert_share
        active += parameters
    return active


def lines(figures: Mapping[str, object]) -> Iterator[str]:
    """Yields the figures of `estimate` as lines of text."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            for part, part_value in value.items():
                label = f"{name} {part}"
                yield f"{label:<24} {_text(name, part_value)}"
        else:
            yield f"{name:<24} {_text(name, value)}"


def _text(name: str, value: object) -> str:
    if value is None and name == "cost":
        return "- (give --cost-per-replica-hour)"
    if value is None:
        return "-"
    if "bytes" in name and isinstance(value, int):
        return f"{value / 1e9:,.3f} GB"
    if name == "padding":
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
