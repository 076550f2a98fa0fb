"""The platform of plain XLA, for devices without kernels of our own."""

from dataclasses import replace

import jax.numpy as jnp
from jax.typing import DTypeLike

from actors.kernels.interface import Kernels, Platform
from actors.kernels.xla import attention, experts, norms, projections, routing
from actors.kernels.xla.layout import keep_loaded_layout

XLA = Platform(
    name="xla",
    kernels=Kernels.jitted(
        routing.route,
        experts.grouped_ffn,
        attention.attend,
        projections.attention_inputs,
        projections.project,
        norms.add_and_norm,
    ),
    pack_for_device=keep_loaded_layout,
    cache_dtype=attention.cache_dtype,
    reads_whole_table=True,
)


def invariant_cpu_options(dtype: DTypeLike) -> dict[str, str]:
    """Returns the options with which XLA for CPUs rounds a row alike in calls of any size.

    XLA hands parts of a program to its library YNNPACK, whose kernels follow the number of rows:
    norms and softmaxes round differently from 32 or 512 rows on, float32 products from some 40.
    Only its single bfloat16 products keep their order of summation, and they need it for speed.
    """
    library_parts = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
    if jnp.dtype(dtype) == jnp.float32:
        library_parts = ""
    return {"xla_cpu_experimental_ynn_fusion_type": library_parts}


# CPUs that the machine code of `kernels/cpu` is not written for: dequantizing int8 weights in every
# step costs more there than reading dense ones.
XLA_CPU = replace(
    XLA, name="xla-cpu", compiler_options=invariant_cpu_options, dense_by_default=True
)
