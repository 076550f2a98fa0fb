"""A platform's name → its kernels.

The mesh's devices decide, so a mesh of GPUs that only compile gets a GPU's.

CPUs have kernels of their own where they can run them (`cpu_code.py`), and plain XLA where they
cannot.
"""

from functools import partial

import jax
from jax.typing import DTypeLike

from actors.kernels.cpu import experts as cpu_experts
from actors.kernels.cpu.code import instruction_sets
from actors.kernels.gpu import attention as gpu_attention
from actors.kernels.gpu import experts as gpu_experts
from actors.kernels.interface import Attend, GroupedFfn, Kernels
from actors.kernels.quantized import Params, Weight, arrange, densify
from actors.kernels.xla import attention as xla_attention
from actors.kernels.xla import experts as xla_experts


def _as_loaded(params: Params, _dtype: DTypeLike) -> dict[str, dict[str, Weight]]:
    return {module: dict(entries) for module, entries in params.items()}


def _as_computed(dtype: DTypeLike) -> DTypeLike:
    return dtype


def _experts(function: GroupedFfn) -> GroupedFfn:
    """Traced and lowered once for all layers of a program: their shapes are the same.

    XLA inlines the calls.
    """
    return jax.jit(function)


def _attention(function: Attend) -> Attend:
    """As `_experts`; the multiplier is a number of the model."""
    return jax.jit(function, static_argnums=4)


XLA = Kernels(
    _experts(xla_experts.grouped_ffn),
    _attention(xla_attention.attend),
    _as_loaded,
    xla_attention.cache_dtype,
    reads_whole_table=True,
)
CPU = XLA._replace(grouped_ffn=_experts(cpu_experts.grouped_ffn), arrange=cpu_experts.arrange)
GPU = Kernels(
    _experts(gpu_experts.grouped_ffn),
    _attention(gpu_attention.attend),
    arrange,
    _as_computed,
    reads_whole_table=False,
)
# the kernels of a GPU, run step by step on whatever JAX runs on: to test them
INTERPRETED = GPU._replace(
    grouped_ffn=_experts(partial(gpu_experts.grouped_ffn, interpret=True)),
    attend=_attention(partial(gpu_attention.attend, interpret=True)),
)


def for_platform(platform: str) -> Kernels:
    """Returns the kernels for a device's `platform`, as JAX names it: "gpu" or "cuda" of NVIDIA's, "cpu", others."""
    if platform in {"gpu", "cuda"}:
        return GPU
    return CPU if platform == "cpu" and instruction_sets() else XLA


def is_dense(weights: str, platform: str) -> bool:
    """Returns whether `weights` ("auto", "int8" or "dense") asks for plain arrays here.

    Auto does on CPUs without kernels.
    """
    return weights == "dense" or (
        weights == "auto" and platform == "cpu" and not instruction_sets()
    )


def prepare(
    params: Params, platform: str, dtype: DTypeLike, *, dense: bool
) -> dict[str, dict[str, Weight]]:
    """Returns int8 parameters as they are computed with: plain arrays of `dtype`, or int8 as the platform's kernels read it.

    Takes the parameters over, as `Kernels.arrange` does.
    """
    return densify(params, dtype) if dense else for_platform(platform).arrange(params, dtype)
