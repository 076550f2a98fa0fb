"""Two norms of the residual stream on NVIDIA GPUs in one Pallas kernel.

XLA computes the sum that both blocks read, and its norm, in two kernels: a fusion with reductions
has one result there.

A program takes one row. It reads the row and the block's result once and keeps them in registers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from actors.kernels.gpu.blocks import load_block
from actors.kernels.xla.norms import NORM_EPSILON

WARPS = 8


def add_and_norm(
    h_BTD: Float[Array, "B T D"],
    update_BTD: Float[Array, "B T D"],
    update_scale_D: Float[Array, " D"],
    scale_D: Float[Array, " D"],
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
    """Returns h + norm(update), and the norm of that sum; see `interface.AddAndNorm`.

    Args:
        h_BTD: the residual stream, bfloat16 or float32.
        update_BTD: a block's result, in the type of the stream.
        update_scale_D: scale of the update's norm, float32.
        scale_D: scale of the sum's norm, float32.
        interpret: interpret the kernel on any device of JAX, for tests.
    """
    width = h_BTD.shape[-1]
    h_ND = h_BTD.reshape(-1, width)
    rows = jax.ShapeDtypeStruct(h_ND.shape, h_ND.dtype)
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    sum_ND, normed_ND = pl.pallas_call(
        _add_and_norm_kernel,
        out_shape=(rows, rows),
        grid=(h_ND.shape[0],),
        in_specs=[in_memory] * 4,
        out_specs=(in_memory, in_memory),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="add_and_norm",
    )(h_ND, update_BTD.reshape(-1, width), update_scale_D, scale_D)
    return sum_ND.reshape(h_BTD.shape), normed_ND.reshape(h_BTD.shape)


def _add_and_norm_kernel(
    h_ref: Any,
    update_ref: Any,
    update_scale_ref: Any,
    scale_ref: Any,
    sum_ref: Any,
    normed_ref: Any,
) -> None:
    """Adds and norms the row of one program."""
    width = h_ref.shape[1]
    column_D = jnp.arange(pl.next_power_of_2(width))
    inside_D = None if width == column_D.size else column_D < width
    row_D = jnp.full_like(column_D, pl.program_id(0))

    def load(ref: Any, *index: Array) -> Array:
        return load_block(ref, index, (inside_D,)).astype(jnp.float32)

    def norm(x_D: Array, scale_ref: Any) -> Array:
        """Returns the norm in the type of the stream; columns outside are zero."""
        mean_square = jnp.sum(x_D * x_D) / width
        normed_D = x_D * jax.lax.rsqrt(mean_square + NORM_EPSILON) * load(scale_ref, column_D)
        return normed_D.astype(sum_ref.dtype)

    update_D = norm(load(update_ref, row_D, column_D), update_scale_ref)
    # the sum of two numbers of the stream's type, rounded once
    sum_D = load(h_ref, row_D, column_D) + update_D.astype(jnp.float32)
    rounded_D = sum_D.astype(sum_ref.dtype)
    normed_D = norm(rounded_D.astype(jnp.float32), scale_ref)
    plgpu.store(sum_ref.at[row_D, column_D], rounded_D, mask=inside_D)
    plgpu.store(normed_ref.at[row_D, column_D], normed_D, mask=inside_D)
