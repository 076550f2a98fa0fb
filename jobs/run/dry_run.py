"""A `Plan` → what the run will take: rows, tokens, padding, memory per device, time, cost.

Starts nothing, loads no weights.

Tokens and padding are measured on a sample of the rows, spread over the input, which goes through
the stages that a run uses. Memory follows from the model's shapes. Time follows from arithmetic and
a stated guess of the hardware; it is an estimate.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from actors.model import arithmetic
from actors.model.config import parameter_shapes
from actors.protocol.messages import Completion, Request
from actors.protocol.size_buckets import padded_length
from jobs.run.plan import Plan
from pipeline.dispatch.buckets import fill_batches
from pipeline.input.reader import read_rows
from pipeline.records import Shard, UnreadableShard
from pipeline.requests.tokenizer import to_requests

SAMPLED_SHARDS, SAMPLED_ROWS = 8, 128  # of each of so many shards, its first rows
SHARDED_AXES = {"vocab", "heads", "kv_heads", "ffn"}  # split over the mesh's model axis


@dataclass(frozen=True, slots=True)
class Device:
    """What one device is assumed to reach: FLOP/s in matrix products and bytes/s from memory, as shares of its peak."""

    name: str
    flops_per_s: float
    bytes_per_s: float


H100 = Device("H100", 0.5 * 989e12, 0.7 * 3.35e12)
CPU = Device("CPU core pair", 2e11, 2e10)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sample of the rows showed."""

    rows: int
    failed: int
    prompt_tokens: int  # prompts and continuations
    new_tokens: int  # at most: max_tokens of every sample
    padded_tokens: int  # prompts and continuations in whole blocks
    batches: int


def estimate(plan: Plan) -> dict[str, object]:
    """Returns the plan's figures by name, ready to be printed or stored."""
    sample = _sample(plan)
    rows = sum(shard.rows for shard in plan.own_shards)
    scale = rows / sample.rows
    memory = device_bytes(plan)
    device = CPU if plan.config.device == "cpu" or plan.config.model == "demo" else H100
    seconds = _seconds(plan, sample, scale, device)
    replicas = plan.config.replica_range()[1]
    price = plan.config.cost_per_replica_hour
    return {
        "rows": rows,
        "shards": len(plan.own_shards),
        "rows_sampled": sample.rows,
        "rows_failing": round(sample.failed * scale),
        "prompt_tokens": round(sample.prompt_tokens * scale),
        "new_tokens_at_most": round(sample.new_tokens * scale),
        "padding": 1 - sample.prompt_tokens / sample.padded_tokens if sample.padded_tokens else 0.0,
        "batches": math.ceil(sample.batches * scale),
        "device_bytes": memory,
        "device_bytes_total": sum(memory.values()),
        "device_assumed": device.name,
        "replicas": replicas,
        "hours": seconds / 3600 / replicas,
        "replica_hours": seconds / 3600,
        "cost": None if price is None else seconds / 3600 * price,
    }


def device_bytes(plan: Plan) -> Mapping[str, int]:
    """Returns the bytes on one device by kind: weights as int8 with scales, KV cache of all slots at full length."""
    engine, shards = plan.engine_config(), plan.config.mesh_shape()[1]
    weights = 0
    for tensor in parameter_shapes(plan.model):
        split = shards if SHARDED_AXES & set(tensor.axes) else 1
        weights += math.ceil(tensor.stored_bytes / split)
    tokens = engine.cache_tokens or engine.slots * engine.max_len
    width = 2 if plan.config.dtype == "bfloat16" else 4
    cache = tokens * arithmetic.cache_bytes(plan.model, width)
    return {"weights": weights, "kv_cache": cache // min(shards, plan.model.num_kv_heads)}


def _sample(plan: Plan) -> Sample:
    shards = plan.own_shards[:: max(1, len(plan.own_shards) // SAMPLED_SHARDS)][:SAMPLED_SHARDS]
    parts = [
        Shard(shard.number, shard.url, shard.first_row, min(shard.rows, SAMPLED_ROWS))
        for shard in shards
    ]
    items = list(to_requests(read_rows(parts, plan.schema), plan.tokenizer, plan.rules))
    for item in items:
        if isinstance(item, UnreadableShard):
            raise item.error
    requests = [item for item in items if isinstance(item, Request)]
    lengths = [
        len(ids) for request in requests for ids in (request.prompt_ids, *request.continuations)
    ]
    return Sample(
        rows=sum(part.rows for part in parts),
        failed=sum(
            1 for item in items if isinstance(item, Completion) and item.error_code is not None
        ),
        prompt_tokens=sum(lengths),
        new_tokens=sum(
            request.sampling.max_tokens for request in requests if request.sampling is not None
        ),
        padded_tokens=sum(map(padded_length, lengths)),
        batches=sum(1 for _ in fill_batches(requests, plan.bucket_config())),
    )


def _seconds(plan: Plan, sample: Sample, scale: float, device: Device) -> float:
    """Returns the seconds of one replica: prompts bound by arithmetic, new tokens by reading weights and cache."""
    shapes, devices = parameter_shapes(plan.model), math.prod(plan.config.mesh_shape())
    share = plan.model.num_selected_experts / plan.model.num_experts
    active = sum(
        math.prod(tensor.shape) * (share if "experts" in tensor.axes else 1) for tensor in shapes
    )
    slots = plan.engine_config().slots
    length = (sample.prompt_tokens + sample.new_tokens / 2) / max(1, sample.rows - sample.failed)
    step_bytes = shapes.stored_bytes + slots * length * arithmetic.cache_bytes(plan.model, 2)
    prefill_s = 2 * active * sample.padded_tokens * scale / (device.flops_per_s * devices)
    decode_s = sample.new_tokens * scale / slots * step_bytes / (device.bytes_per_s * devices)
    return prefill_s + decode_s


def lines(figures: Mapping[str, object]) -> Iterator[str]:
    """Yields the figures of `estimate` as lines of text."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from (
                f"{name + ' ' + part:<24} {_shown(name, each)}" for part, each in value.items()
            )
        else:
            yield f"{name:<24} {_shown(name, value)}"


def _shown(name: str, value: object) -> str:
    if value is None:
        return "- (give --cost-per-replica-hour)" if name == "cost" else "-"
    if "bytes" in name and isinstance(value, int):
        return f"{value / 1e9:,.3f} GB"
    if name == "padding":
        return f"{value:.1%}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
