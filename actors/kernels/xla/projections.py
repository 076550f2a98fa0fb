"""The projections of attention in plain XLA: query, key and value, their places, and the output."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from actors.kernels.interface import Pages, Placement, Projection, Projections
from actors.kernels.quantized import MatrixWeight, matmul
from actors.kernels.xla.attention import bits

ROTARY_BASE = 10000.0


def project(x_BTK: Float[Array, "*rows K"], weight: MatrixWeight) -> Float[Array, "*rows N"]:
    """Returns x · weight, summed in float32, in the type of x; see `interface.Project`."""
    return matmul(x_BTK, weight).astype(x_BTK.dtype)


def attention_inputs(
    x_BTD: Float[Array, "B T D"],
    weights: Projections,
    keys: Pages,
    values: Pages,
    placement: Placement,
    project: Callable[[Array, Any], Array] = project,
) -> tuple[Float[Array, "B T H C"], Pages, Pages]:
    """Returns rotated queries, and the pages with new keys and values.

    See `interface.AttentionInputs`; `project` multiplies with a weight.
    """
    query, key, value = weights
    width = keys.shape[3]

    def heads(weight: Projection) -> Array:
        return project(x_BTD, weight).reshape(*x_BTD.shape[:2], -1, width)

    q_BTHC = rotate(heads(query), placement.positions_BT)
    k_BTKC = rotate(heads(key), placement.positions_BT)
    v_BTKC = heads(value)
    keys = write_rows(keys, k_BTKC, placement)
    values = write_rows(values, v_BTKC, placement)
    return q_BTHC, keys, values


def rotation(
    positions_BT: Int[Array, "B T"], width: int
) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Returns sine and cosine of the angles by which heads of `width` columns are rotated."""
    half = width // 2
    frequency_C = ROTARY_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    phase_BTC = positions_BT.astype(jnp.float32)[..., None] * frequency_C[None, None, :]
    return jnp.sin(phase_BTC), jnp.cos(phase_BTC)


def rotate(
    x_BTKC: Float[Array, "B T K C"], positions_BT: Int[Array, "B T"]
) -> Float[Array, "B T K C"]:
    """Returns `x` rotated by its position, float32 inside.

    Dimension i is paired with i + C/2 (halves, not neighbours).
    """
    sin_BTC, cos_BTC = rotation(positions_BT, x_BTKC.shape[-1])
    sin = sin_BTC[:, :, None, :]
    cos = cos_BTC[:, :, None, :]
    first, second = jnp.split(x_BTKC.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTKC.dtype)


def write_rows(
    pages_PZKC: Pages, rows_BTKC: Float[Array, "B T K C"], placement: Placement
) -> Pages:
    """Returns the pages with the new rows in place; rows of padding tokens are dropped."""
    p, z, k, c = pages_PZKC.shape
    row_N = (placement.page_BT * z + placement.offset_BT).reshape(-1)  # of padding: beyond the last
    if pages_PZKC.dtype == jnp.uint16:
        stored_BTKC = bits(rows_BTKC)
    else:
        stored_BTKC = rows_BTKC.astype(pages_PZKC.dtype)

    # one index per row: with an index of two parts XLA for CPUs takes about four times as long
    flat_RW = pages_PZKC.reshape(p * z, k * c)
    written_RW = flat_RW.at[row_N].set(stored_BTKC.reshape(-1, k * c), mode="drop")
    return written_RW.reshape(p, z, k, c)
