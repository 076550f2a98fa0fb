"""Attention over pages in plain XLA: gathers the pages of a few sequences, then one softmax.

Input and output as `interface.Attend` describes.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt16

from actors.kernels.interface import Pages, Placement
from actors.kernels.quantized import product_precision

LOGIT_CAP = 30.0
MASKED = -1e30
# Bytes of keys, and of values, that are gathered together: what stays in a core's cache.
GATHERED_BYTES = 2 << 20


def attend(
    q_BTHC: Float[Array, "B T H C"],
    keys: Pages,
    values: Pages,
    placement: Placement,
    multiplier: float | int,
) -> Float[Array, "B T H C"]:
    """Returns softmax(30 tanh(q·k x multiplier / 30)) · v over the visible positions."""
    return attend_in_batches(q_BTHC, keys, values, placement, multiplier, GATHERED_BYTES)


def attend_in_batches(
    q_BTHC: Float[Array, "B T H C"],
    keys: Pages,
    values: Pages,
    placement: Placement,
    multiplier: float | int,
    gathered_bytes: int,
) -> Float[Array, "B T H C"]:
    """Returns `attend` of as many sequences at a time as `gathered_bytes` of keys allow.

    Sequences together that have no live position, as the empty rows of a decode call, cost nothing.
    """
    sequences = q_BTHC.shape[0]
    position_bytes = keys[0, 0].size * q_BTHC.dtype.itemsize
    sequence_bytes = placement.live_BS.shape[1] * position_bytes
    batch = batch_size(sequences, sequence_bytes, gathered_bytes)
    if batch == sequences:
        return _attend_sequences(q_BTHC, keys, values, placement, multiplier)

    def split(x: Array) -> Array:
        return x.reshape(-1, batch, *x.shape[1:])

    def attend_batch(arguments: tuple[Array, Placement]) -> Array:
        q, batch_placement = arguments
        # the attention of a query that sees no key is zero
        return jax.lax.cond(
            jnp.any(batch_placement.live_BS),
            lambda: _attend_sequences(q, keys, values, batch_placement, multiplier),
            lambda: jnp.zeros_like(q),
        )

    out: Array = jax.lax.map(attend_batch, jax.tree.map(split, (q_BTHC, placement)))
    return out.reshape(q_BTHC.shape)


def batch_size(sequences: int, sequence_bytes: int, gathered_bytes: int = GATHERED_BYTES) -> int:
    """Returns how many sequences are computed together.

    The most that divide `sequences` and gather no more than `gathered_bytes`, and at least one.
    """
    for size in range(sequences, 1, -1):
        if sequences % size == 0 and size * sequence_bytes <= gathered_bytes:
            return size
    return 1


def _attend_sequences(
    q_BTHC: Float[Array, "B T H C"],
    keys: Pages,
    values: Pages,
    placement: Placement,
    multiplier: float | int,
) -> Array:
    b, t, h, c = q_BTHC.shape
    kv_heads = keys.shape[2]
    group = h // kv_heads

    # a weight of zero does not silence a NaN, so rows that no query may see are cleared
    live_BS11 = placement.live_BS[..., None, None]
    v_BSKC = jnp.where(live_BS11, _gather(values, placement.pages_BJ), 0)
    k_BKSC = _heads_first(_gather(keys, placement.pages_BJ))
    v_BKSC = _heads_first(v_BSKC)

    # the G x T queries of one KV head are the rows Q of one product
    q_BKGTC = q_BTHC.reshape(b, t, kv_heads, -1, c).transpose(0, 2, 3, 1, 4)
    q_BKQC = q_BKGTC.reshape(b, kv_heads, -1, c)
    logits_BKQS = _einsum("bkqc,bksc->bkqs", q_BKQC, k_BKSC) * multiplier
    logits_BKGTS = logits_BKQS.reshape(b, kv_heads, group, t, -1)
    capped = LOGIT_CAP * jnp.tanh(logits_BKGTS / LOGIT_CAP)
    visible = placement.visible_BTS[:, None, None, :, :]
    weights = jax.nn.softmax(jnp.where(visible, capped, MASKED), axis=-1)

    # grok-1: a query that sees no key (a prompt that begins with pad) attends there uniformly to
    # everything, later tokens and padding included; here its attention is zero, so that it depends
    # on nothing.
    weights = jnp.where(visible, weights, 0).astype(q_BTHC.dtype)
    weights_BKQS = weights.reshape(*q_BKQC.shape[:3], -1)
    out_BKQC = _einsum("bkqs,bksc->bkqc", weights_BKQS, v_BKSC)
    out_BKGTC = out_BKQC.reshape(b, kv_heads, group, t, c)
    return out_BKGTC.transpose(0, 3, 1, 2, 4).astype(q_BTHC.dtype).reshape(b, t, h, c)


def _heads_first(x_BSKC: Array) -> Array:
    """Returns gathered rows with the heads first, as numbers.

    Written out once, or XLA would widen and transpose them instead.
    """
    return _numbers(jax.lax.optimization_barrier(x_BSKC.swapaxes(1, 2)))


def cache_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns the type in which pages hold keys and values of `dtype`.

    Bfloat16 is stored as its bits, see `interface.Pages`.
    """
    return jnp.uint16 if dtype == jnp.bfloat16 else dtype


def bits(x: Float[Array, "..."]) -> UInt16[Array, "..."]:
    """Returns bfloat16 numbers as their bits."""
    return jax.lax.bitcast_convert_type(x, jnp.uint16)


def _numbers(x: Float[Array, "..."] | UInt16[Array, "..."]) -> Float[Array, "..."]:
    """Returns what `bits` was given; other numbers as they are."""
    return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def _gather(
    pages_PZKC: Pages, pages_BJ: Int[Array, "B J"]
) -> Float[Array, "B S K C"] | UInt16[Array, "B S K C"]:
    gathered_BJZKC = pages_PZKC[pages_BJ]
    b, j, z, k, c = gathered_BJZKC.shape
    return gathered_BJZKC.reshape(b, j * z, k, c)


def _einsum(formula: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.einsum(
        formula, x, y, precision=product_precision(x), preferred_element_type=jnp.float32
    )
