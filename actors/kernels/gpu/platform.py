"""The platform of NVIDIA GPUs, and its kernels run by the interpreter for tests."""

from dataclasses import replace
from functools import partial

from jax.typing import DTypeLike

from actors.kernels.gpu import attention, experts, norms, projections, routing
from actors.kernels.gpu.layout import pack_for_device
from actors.kernels.interface import Kernels, Platform


def _cache_dtype(dtype: DTypeLike) -> DTypeLike:
    return dtype


# XLA otherwise times several algorithms for each product and takes the fastest, which may be
# another one on another machine, and with other neighbours on the same one.
DETERMINISTIC_OPTIONS = (
    ("xla_gpu_autotune_level", "0"),
    ("xla_gpu_exclude_nondeterministic_ops", "True"),
)

GPU = Platform(
    name="gpu",
    kernels=Kernels.jitted(
        routing.route,
        experts.grouped_ffn,
        attention.attend,
        projections.attention_inputs,
        projections.project,
        norms.add_and_norm,
    ),
    pack_for_device=pack_for_device,
    cache_dtype=_cache_dtype,
    reads_whole_table=False,
    compiles_before_loading=True,
    overlaps_calls=True,
    deterministic_options=DETERMINISTIC_OPTIONS,
)

# The kernels of a GPU, interpreted on any device of JAX: for tests.
INTERPRETED = replace(
    GPU,
    name="gpu-interpreted",
    kernels=Kernels.jitted(
        partial(routing.route, interpret=True),
        partial(experts.grouped_ffn, interpret=True),
        partial(attention.attend, interpret=True),
        partial(projections.attention_inputs, interpret=True),
        partial(projections.project, interpret=True),
        partial(norms.add_and_norm, interpret=True),
    ),
)
