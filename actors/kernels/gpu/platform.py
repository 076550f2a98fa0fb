"""The platform of NVIDIA GPUs, and its kernels run by the interpreter for tests."""

from dataclasses import replace
from functools import partial

from jax.typing import DTypeLike

from actors.kernels.gpu import attention, experts, routing
from actors.kernels.gpu.layout import pack_for_device
from actors.kernels.interface import Kernels, Platform


def _cache_dtype(dtype: DTypeLike) -> DTypeLike:
    return dtype


GPU = Platform(
    name="gpu",
    kernels=Kernels.jitted(routing.route, experts.grouped_ffn, attention.attend),
    pack_for_device=pack_for_device,
    cache_dtype=_cache_dtype,
    reads_whole_table=False,
    compiles_before_loading=True,
)

# The kernels of a GPU, interpreted on any device of JAX: for tests.
INTERPRETED = replace(
    GPU,
    name="gpu-interpreted",
    kernels=Kernels.jitted(
        partial(routing.route, interpret=True),
        partial(experts.grouped_ffn, interpret=True),
        partial(attention.attend, interpret=True),
    ),
)
