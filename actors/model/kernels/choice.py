"""A platform's name → its kernels. The mesh's devices decide, so a mesh of GPUs that only compile gets a GPU's."""

from functools import partial

from jax.typing import DTypeLike

from actors.model.kernels import gpu_attention, gpu_experts, xla_attention, xla_experts
from actors.model.kernels.interface import Kernels
from actors.model.quantized import Params, Weight, arrange


def _as_loaded(params: Params, _dtype: DTypeLike) -> dict[str, dict[str, Weight]]:
    return {module: dict(entries) for module, entries in params.items()}


def _as_computed(dtype: DTypeLike) -> DTypeLike:
    return dtype


XLA = Kernels(xla_experts.grouped_ffn, xla_attention.attend, _as_loaded, xla_attention.cache_dtype, reads_whole_table=True)
GPU = Kernels(gpu_experts.grouped_ffn, gpu_attention.attend, arrange, _as_computed, reads_whole_table=False)
# the kernels of a GPU, run step by step on whatever JAX runs on: to test them
INTERPRETED = Kernels(
    partial(gpu_experts.grouped_ffn, interpret=True),
    partial(gpu_attention.attend, interpret=True),
    arrange,
    _as_computed,
    reads_whole_table=False,
)


def for_platform(platform: str) -> Kernels:
    """Returns the kernels for a device's `platform`, as JAX names it: "gpu" or "cuda" of NVIDIA's, "cpu" and others plain XLA."""
    return GPU if platform in {"gpu", "cuda"} else XLA
