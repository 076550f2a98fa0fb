"""Loads of blocks with masks, and products, as all kernels of a GPU use them."""

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

from actors.kernels.quantized import product_precision


def load_block(
    ref: Any, index: tuple[Any, ...], inside: tuple[Array | None, ...], other: int = 0
) -> Array:
    """Returns a block, `other` where one of the masks is false.

    Args:
        ref: where to load from.
        index: of the block, as `ref.at` takes it.
        inside: a mask for each axis of the block, or None. Without masks none is computed.
        other: value of numbers outside.
    """
    masks = []
    for axis, mask in enumerate(inside):
        if mask is not None:
            shape = [1] * len(inside)
            shape[axis] = -1
            masks.append(mask.reshape(shape))
    if not masks:
        return plgpu.load(ref.at[index])

    block_shape = jnp.broadcast_shapes(*map(jnp.shape, index))
    block_mask = jnp.broadcast_to(reduce(jnp.logical_and, masks), block_shape)
    return plgpu.load(ref.at[index], mask=block_mask, other=other)


def block_dot(x: Array, y: Array) -> Array:
    """Returns x · y in float32; float32 numbers are multiplied exactly."""
    return plgpu.dot(x, y, precision=product_precision(x))
