"""Sizes of engines and batches where the flags leave them to the plan, and sizes of KV caches.

Decode reads all weights in each step, whatever the number of sequences: on GPUs, more slots are
more tokens for the same bytes until products take as long as reading, at some 512 rows. On CPUs
products take the time from a few dozen rows on.

The sizes depend on the model, the mesh and the input of a run only: they are the same for all its
replicas and for its continuation. No JAX: the driver calls this.
"""

import math
from dataclasses import dataclass
from typing import Literal

from actors.engine.config import EngineConfig
from actors.model import arithmetic
from actors.model.config import ModelConfig

GPU_SLOTS = (512, 256)  # the first number of sequences that fit into the cache, else the last
GPU_PREFILL_TOKENS = 8192
# docs/benchmarks/engine-cpu.md: beyond, a decode step takes as much longer as it has more rows.
CPU_SLOTS = 64
CPU_PREFILL_TOKENS = 2048

# On GPUs the host works while the devices run, so short calls cost nothing, and slots of sequences
# that end are free sooner: docs/benchmarks/simulation.md.
GPU_DECODE_STEPS = 2
CPU_DECODE_STEPS = 8

# Plans assume the smallest memory of the GPUs that are supported, and JAX's share of it, which
# actors/pool/environment.py sets.
GPU_MEMORY_BYTES = 80 * 10**9
JAX_SHARE = 0.9
DEVICE_SHARE = 0.85  # of what weights leave free; the rest is for temporaries
HOST_CACHE_BYTES = 1 << 30  # of all virtual devices of a CPU replica together

# Requests on a replica for each slot: those of a batch end at different times, and the batch stays
# until the last one. With one slot in two idle at the end of its batch, all slots are in use.
REQUESTS_PER_SLOT = 2
BATCH_TOKENS = 8192
MIN_BATCHES_IN_FLIGHT = 16
# Smaller batches repeat less work when a replica is lost; each takes a thread of its replica.
MAX_BATCHES_IN_FLIGHT = 64

SlotLimit = Literal["flag", "cpu", "kv_cache", "products"]


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """Sizes of the engines of a run, and of the work that their replicas hold."""

    slots: int  # of one data shard
    slot_limit: SlotLimit  # why there are not more of them
    prefill_tokens: int  # of all data shards
    decode_steps: int  # tokens of a sequence in one decode call
    batch_tokens: int  # token budget of one batch
    batches_in_flight: int  # of one replica


@dataclass(frozen=True, slots=True)
class SizeFlags:
    """What a user has set; None: left to the plan."""

    slots: int | None = None
    prefill_tokens: int | None = None
    batch_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of one replica as a plan assumes them."""

    data_shards: int
    model_shards: int
    on_gpus: bool
    memory_bytes: int = GPU_MEMORY_BYTES  # of one GPU


def engine_sizes(
    model: ModelConfig,
    devices: Devices,
    itemsize: int,
    flags: SizeFlags,
    request_tokens: float | None = None,
) -> EngineSizes:
    """Returns the sizes of the engines of a run.

    Args:
        model: the model.
        devices: of a replica.
        itemsize: bytes of a number in the KV cache.
        flags: sizes that are set.
        request_tokens: tokens that a request of the run takes in the cache at most, on average;
            None: not known.
    """
    slots, limit = _slots(model, devices, itemsize, flags, request_tokens)
    data_shards = devices.data_shards

    tokens_in_flight = 0.0
    if request_tokens is not None:
        tokens_in_flight = REQUESTS_PER_SLOT * slots * data_shards * request_tokens
    batch_tokens = flags.batch_tokens
    if batch_tokens is None:
        batch_tokens = max(BATCH_TOKENS, math.ceil(tokens_in_flight / MAX_BATCHES_IN_FLIGHT))
    batches = math.ceil(tokens_in_flight / batch_tokens)
    batches = min(max(batches, MIN_BATCHES_IN_FLIGHT), MAX_BATCHES_IN_FLIGHT)

    prefill_tokens = flags.prefill_tokens
    if prefill_tokens is None:
        standard = GPU_PREFILL_TOKENS if devices.on_gpus else CPU_PREFILL_TOKENS
        prefill_tokens = min(standard, batch_tokens)
    return EngineSizes(
        slots=slots,
        slot_limit=limit,
        prefill_tokens=prefill_tokens,
        decode_steps=GPU_DECODE_STEPS if devices.on_gpus else CPU_DECODE_STEPS,
        batch_tokens=batch_tokens,
        batches_in_flight=batches,
    )


def _slots(
    model: ModelConfig,
    devices: Devices,
    itemsize: int,
    flags: SizeFlags,
    request_tokens: float | None,
) -> tuple[int, SlotLimit]:
    if flags.slots is not None:
        return flags.slots, "flag"
    if not devices.on_gpus:
        return max(1, CPU_SLOTS // devices.data_shards), "cpu"

    fitting = 0.0
    if request_tokens is not None:
        fitting = affordable_tokens(model, devices, itemsize) / max(1.0, request_tokens)
    most, least = GPU_SLOTS
    if fitting >= most:
        return most, "products"
    return least, "kv_cache"


def affordable_tokens(model: ModelConfig, devices: Devices, itemsize: int) -> int:
    """Returns the tokens of KV cache that the memory of one data shard's devices holds."""
    token_bytes = cache_bytes_per_token(model, devices.model_shards, itemsize)
    if not devices.on_gpus:
        device_count = devices.data_shards * devices.model_shards
        return HOST_CACHE_BYTES // device_count // token_bytes
    weight_bytes = arithmetic.device_weight_bytes(model, devices.model_shards)
    free_bytes = max(0.0, devices.memory_bytes * JAX_SHARE - weight_bytes)
    return int(free_bytes * DEVICE_SHARE) // token_bytes


def cache_tokens(engine: EngineConfig, data_shards: int, affordable: int) -> int:
    """Returns the tokens of one data shard's cache: as configured, or what slots can fill.

    Args:
        engine: sizes of the engine.
        data_shards: positions along the mesh's data axis.
        affordable: tokens that memory holds.
    """
    if engine.cache_tokens is not None:
        return engine.cache_tokens
    return min(engine.shard_slots(data_shards) * engine.max_len, affordable)


def cache_bytes_per_token(model: ModelConfig, model_shards: int, itemsize: int) -> int:
    """Returns the bytes that one token of KV cache takes on one device."""
    return arithmetic.cache_bytes(model, itemsize) // model_shards + 4  # and the token itself
