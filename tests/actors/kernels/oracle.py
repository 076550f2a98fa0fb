"""What the kernels of every platform must compute, in NumPy and float64, and inputs for it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from actors.kernels.gpu.layout import pack_for_device
from actors.kernels.interface import Experts, Placement
from actors.kernels.quantized import QuantizedWeight


def quantized_experts(
    experts: int, width: int, ffn: int, out_groups: int = 1, seed: int = 0
) -> Experts:
    """Returns random gate, value and output projections, stacked as a checkpoint has them."""
    rng = np.random.default_rng(seed)

    def weight(rows: int, columns: int, groups: int) -> QuantizedWeight:
        values = rng.integers(-127, 128, (experts, rows, columns), np.int8)
        scales = rng.uniform(0.5, 2, (experts, groups, columns)) / (127 * rows**0.5)
        return QuantizedWeight(jnp.asarray(values), jnp.asarray(scales, jnp.bfloat16))

    return weight(width, ffn, 1), weight(width, ffn, 1), weight(ffn, width, out_groups)


def packed_for_gpu(weights: Experts) -> Experts:
    """Returns a copy of the weights as the kernels of a GPU take them."""
    copies: Any = {
        f"{i}": {"w": QuantizedWeight(*map(jnp.array, weight))} for i, weight in enumerate(weights)
    }
    packed = pack_for_device(copies, jnp.float32)
    return packed["0"]["w"], packed["1"]["w"], packed["2"]["w"]


def norm_inputs(rows: int, width: int, dtype: str) -> tuple[Array, Array, Array, Array]:
    """Returns a residual stream, a block's result, and the scales of their two norms."""
    rng = np.random.default_rng(rows)
    h_BTD = jnp.asarray(rng.normal(0, 2, (rows, 1, width)), dtype)
    update_BTD = jnp.asarray(rng.normal(0, 5, (rows, 1, width)), dtype)
    update_scale_D = jnp.asarray(rng.normal(1, 0.3, width), jnp.float32)
    scale_D = jnp.asarray(rng.normal(1, 0.3, width), jnp.float32)
    return h_BTD, update_BTD, update_scale_D, scale_D


def exact_norm(x: np.ndarray, scale_D: np.ndarray) -> np.ndarray:
    """Returns the RMS norm of rows."""
    x64 = x.astype(np.float64)
    mean_square = (x64**2).mean(axis=-1, keepdims=True)
    normed: np.ndarray = x64 / np.sqrt(mean_square + 1e-5) * scale_D.astype(np.float64)
    return normed


def router_shares(x_ND: np.ndarray, w_DE: np.ndarray) -> np.ndarray:
    """Returns the softmax of each token's router logits over all experts."""
    logits_NE = x_ND.astype(np.float64) @ w_DE.astype(np.float64)
    exponentials_NE = np.exp(logits_NE - logits_NE.max(axis=1, keepdims=True))
    shares_NE: np.ndarray = exponentials_NE / exponentials_NE.sum(axis=1, keepdims=True)
    return shares_NE


def expert_rows(x_ND: np.ndarray, chosen_NX: np.ndarray, weights: Experts) -> np.ndarray:
    """Returns linear_1(gelu(linear(x)) * linear_v(x)) of every (token, choice).

    Zero where the choice is no expert.
    """
    gate, value, out = (dequantized(weight) for weight in weights)
    rows = np.zeros((*chosen_NX.shape, x_ND.shape[1]))
    for n, x in np.ndindex(chosen_NX.shape):
        e = chosen_NX[n, x]
        if e < len(gate):
            g = x_ND[n].astype(np.float64) @ gate[e]
            gelu = 0.5 * g * (1 + np.tanh((2 / np.pi) ** 0.5 * (g + 0.044715 * g**3)))
            rows[n, x] = (gelu * (x_ND[n] @ value[e])) @ out[e]
    return rows


def quantized_matrix(rows: int, columns: int, groups: int = 1, seed: int = 0) -> QuantizedWeight:
    """Returns a random matrix."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-127, 128, (rows, columns), np.int8)
    scales = rng.uniform(0.5, 2, (groups, columns)) / (74 * rows**0.5)
    return QuantizedWeight(jnp.asarray(values), jnp.asarray(scales, jnp.bfloat16))


def dequantized(weight: Any) -> np.ndarray:
    """Returns the numbers of an int8 weight, stacked or not."""
    values = np.asarray(weight.weight, np.float64)
    scales = np.asarray(weight.scales.astype(jnp.float32), np.float64)
    return values * np.repeat(scales, values.shape[-2] // scales.shape[-2], axis=-2)


def rotated(x_C: np.ndarray, position: int) -> np.ndarray:
    """Returns the columns of a head as complex numbers of both halves, turned by their angles."""
    half = len(x_C) // 2
    pairs = x_C[:half] + 1j * x_C[half:].astype(np.float64)
    angles = position / 10000.0 ** (np.arange(half) / half)
    turned = pairs * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag])


def new_tokens(
    start: list[int], count: list[int], *, new: int, page_size: int, table: int
) -> Placement:
    """Returns places of new tokens on shuffled pages; what only attention reads is missing."""
    pages = len(start) * table
    pages_BJ = np.random.default_rng(0).permutation(pages).reshape(len(start), table)
    number_T = np.arange(new)
    positions_BT = np.asarray(start)[:, None] + number_T
    table_entry_BT = np.minimum(positions_BT // page_size, table - 1)
    page_BT = np.take_along_axis(pages_BJ, table_entry_BT, axis=1)
    page_BT = np.where(number_T < np.asarray(count)[:, None], page_BT, pages)
    arrays = (positions_BT, page_BT, positions_BT % page_size, pages_BJ)
    integers = (jnp.asarray(array, jnp.int32) for array in arrays)
    nothing_BS = jnp.zeros((len(start), table * page_size), bool)
    length_B = jnp.zeros(len(start), jnp.int32)
    visible_BTS = jnp.zeros((len(start), new, table * page_size), bool)
    return Placement(*integers, length_B, nothing_BS, visible_BTS)


class Paged(NamedTuple):
    """One call of attention."""

    q: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    placement: Placement
    tokens_BS: np.ndarray


def paged(
    start: list[int],
    count: list[int],
    *,
    new: int,
    heads: int,
    kv_heads: int,
    width: int,
    page_size: int,
    table: int,
    seed: int = 0,
) -> Paged:
    """Returns sequences with pages anywhere, random tokens, some 0, and NaN in unused rows."""
    rng = np.random.default_rng(seed)
    b, pages = len(start), len(start) * table + 3
    pages_BJ = rng.permutation(pages)[: b * table].reshape(b, table).astype(np.int32)
    begin, real = np.array(start, np.int32), np.array(count, np.int32)
    tokens_BS = rng.integers(0, 3, (b, table * page_size))  # a third of all are pad
    length = np.where(real > 0, begin + real, 0).astype(np.int32)
    position_S = np.arange(table * page_size)
    live = (tokens_BS > 0) & (position_S < length[:, None])
    positions = begin[:, None] + np.arange(new, dtype=np.int32)
    visible = live[:, None] & (position_S <= positions[:, :, None])
    keys, values = np.full((2, pages, page_size, kv_heads, width), np.nan, np.float32)
    for row in range(b):
        for at in np.flatnonzero(live[row]):
            where = pages_BJ[row, at // page_size], at % page_size
            keys[where], values[where] = rng.standard_normal((2, kv_heads, width))
    q = 4 * rng.standard_normal((b, new, heads, width)).astype(np.float32)
    nowhere = jnp.zeros((b, new), jnp.int32)  # attention writes nothing
    placement = Placement(
        *map(jnp.asarray, (positions, nowhere, nowhere, pages_BJ, length, live, visible))
    )
    return Paged(q, keys, values, placement, tokens_BS)


def attention(case: Paged, multiplier: float) -> np.ndarray:
    """Returns softmax(30 tanh(q·k x multiplier / 30)) · v over the visible keys.

    Zero for a query without any.
    """
    out = np.zeros(case.q.shape)
    visible, pages_BJ = np.asarray(case.placement.visible_BTS), np.asarray(case.placement.pages_BJ)
    page_size, kv_heads = case.keys.shape[1:3]
    for b, t, h in np.ndindex(case.q.shape[:3]):
        seen = np.flatnonzero(visible[b, t])
        if len(seen):
            where = (
                pages_BJ[b, seen // page_size],
                seen % page_size,
                h // (case.q.shape[2] // kv_heads),
            )
            logits = 30 * np.tanh(
                case.keys[where].astype(np.float64) @ case.q[b, t, h] * multiplier / 30
            )
            weights = np.exp(logits - logits.max())
            out[b, t, h] = weights / weights.sum() @ case.values[where]
    return out
