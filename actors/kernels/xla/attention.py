"""Attention over pages in plain XLA: gathers the pages of a few sequences at a time, then one softmax over all of them.

Input and output as `interface.Attend` says. Knows no modules, no mesh and nothing of who owns a
page.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt16

from actors.kernels.interface import Pages, Placement

LOGIT_CAP = 30.0
MASKED = -1e30
# of keys, and of values, that are gathered together: what stays in a core's cache
GATHERED_BYTES = 2 << 20


def attend(
    q_BTHC: Float[Array, "B T H C"],
    keys: Pages,
    values: Pages,
    placement: Placement,
    multiplier: float | int,
) -> Float[Array, "B T H C"]:
    """Returns softmax(30 tanh(q·k x multiplier / 30)) · v over the visible positions."""
    rows = _rows_at_once(
        q_BTHC.shape[0], placement.live_BS.shape[1] * keys[0, 0].size * q_BTHC.dtype.itemsize
    )
    if rows == q_BTHC.shape[0]:
        return _attend_rows(q_BTHC, keys, values, placement, multiplier)

    def split(x: Array) -> Array:
        return x.reshape(-1, rows, *x.shape[1:])

    def run(part: tuple[Array, Placement]) -> Array:
        return _attend_rows(part[0], keys, values, part[1], multiplier)

    out: Array = jax.lax.map(run, jax.tree.map(split, (q_BTHC, placement)))
    return out.reshape(q_BTHC.shape)


def _rows_at_once(rows: int, row_bytes: int) -> int:
    """Returns how many of `rows` are computed together: the most that divide them and gather no more than GATHERED_BYTES."""
    return max(
        n
        for n in range(1, rows + 1)
        if rows % n == 0 and (n == 1 or n * row_bytes <= GATHERED_BYTES)
    )


def _attend_rows(
    q_BTHC: Float[Array, "B T H C"],
    keys: Pages,
    values: Pages,
    placement: Placement,
    multiplier: float | int,
) -> Array:
    b, t, h, c = q_BTHC.shape
    kv_heads = keys.shape[2]
    # a weight of zero does not silence a NaN, so rows nobody may see are cleared
    v_BSKC = jnp.where(placement.live_BS[..., None, None], _gather(values, placement.pages_BJ), 0)
    k_BKSC, v_BKSC = _by_head(_gather(keys, placement.pages_BJ)), _by_head(v_BSKC)
    # the G x T queries of one KV head are the rows Q of one product
    q_BKQC = (
        q_BTHC.reshape(b, t, kv_heads, -1, c).transpose(0, 2, 3, 1, 4).reshape(b, kv_heads, -1, c)
    )
    logits_BKGTS = (_einsum("bkqc,bksc->bkqs", q_BKQC, k_BKSC) * multiplier).reshape(
        b, kv_heads, h // kv_heads, t, -1
    )
    capped = LOGIT_CAP * jnp.tanh(logits_BKGTS / LOGIT_CAP)
    visible = placement.visible_BTS[:, None, None, :, :]
    weights = jax.nn.softmax(jnp.where(visible, capped, MASKED), axis=-1)
    # grok-1: a query that sees no key (a prompt that begins with pad) attends there uniformly to
    # everything, later tokens and padding included; here its attention is zero, so that it depends
    # on nothing.
    weights = jnp.where(visible, weights, 0).astype(q_BTHC.dtype).reshape(*q_BKQC.shape[:3], -1)
    out_BKGTC = _einsum("bkqs,bksc->bkqc", weights, v_BKSC).reshape(
        b, kv_heads, h // kv_heads, t, c
    )
    return out_BKGTC.transpose(0, 3, 1, 2, 4).astype(q_BTHC.dtype).reshape(b, t, h, c)


def _by_head(x_BSKC: Array) -> Array:
    """Returns gathered rows with the heads first, as numbers.

    Written out once, or XLA would widen and transpose them instead.
    """
    return _computed(jax.lax.optimization_barrier(x_BSKC.swapaxes(1, 2)))


def cache_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns the type in which pages hold keys and values of `dtype`: bfloat16 as its bits, see `interface.Pages`."""
    return jnp.uint16 if dtype == jnp.bfloat16 else dtype


def bits(x: Float[Array, "..."]) -> UInt16[Array, "..."]:
    """Returns bfloat16 numbers as their bits."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16)


def _computed(x: Float[Array, "..."] | UInt16[Array, "..."]) -> Float[Array, "..."]:
    return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def _gather(
    pages_PZKC: Pages, pages_BJ: Int[Array, "B J"]
) -> Float[Array, "B S K C"] | UInt16[Array, "B S K C"]:
    gathered_BJZKC = pages_PZKC[pages_BJ]
    b, j, z, k, c = gathered_BJZKC.shape
    return gathered_BJZKC.reshape(b, j * z, k, c)


def _einsum(formula: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(formula, x, y, precision=precision, preferred_element_type=jnp.float32)
