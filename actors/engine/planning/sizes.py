"""Slots of a data shard and positions of a prefill call where a run leaves them to the plan.

Decode reads all weights in each step, whatever the number of sequences: on GPUs, more slots are
more tokens for the same bytes until products take as long as reading. On CPUs products take the
time from a few dozen rows on.

Depends on the run's model, mesh and input only, so that all replicas of a run, and a run that is
resumed, have the same sizes. No JAX: the driver calls this.
"""

from dataclasses import dataclass

GPU_SLOTS = 256
GPU_PREFILL_TOKENS = 8192
# docs/benchmarks/engine-cpu.md: beyond, decode of a step takes as much longer as it has more rows.
CPU_SLOTS = 64
CPU_PREFILL_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """Sizes of the engines of a run."""

    slots: int  # of one data shard
    prefill_tokens: int  # of all data shards


def engine_sizes(*, data_shards: int, on_gpus: bool) -> EngineSizes:
    """Returns the sizes of engines.

    Args:
        data_shards: positions along the mesh's data axis.
        on_gpus: whether the devices are GPUs.
    """
    if on_gpus:
        return EngineSizes(GPU_SLOTS, GPU_PREFILL_TOKENS)
    return EngineSizes(max(1, CPU_SLOTS // data_shards), CPU_PREFILL_TOKENS)
