"""The experts of a layer in plain XLA: tokens sorted by expert, in blocks of equal size.

As many blocks run as the routing needs:

    assignments (token, choice), sorted     e0 e0 e0 e1 e3 e3 e3 e3 e3
    blocks of 2 rows                        [─────][──·][─·][─────][─────][─·]

    · : row of a neighbour, overwritten or unread

No token is dropped, and a token's result does not depend on what else is in the step.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from actors.kernels.interface import Experts, Weight
from actors.kernels.xla.layout import ExpertMatrix, expert_matmul

LONGEST_BLOCK = 128  # rows
ROW_STEP = 8  # a block's rows are a multiple of it


def block_rows(tokens: int, chosen: int, experts: int) -> int:
    """Returns the rows of a block: an expert's share of evenly routed tokens, in few equal blocks.

    The share is the mean and two standard deviations, so that hardly an expert needs a further
    block for a few rows: a block costs the reading of its expert's weights, as much as about 23
    rows. Never more than the tokens themselves.
    """
    mean = tokens * chosen / experts
    deviation = math.sqrt(mean * max(0.0, 1 - chosen / experts))
    share = min(tokens, mean + 2 * deviation)
    blocks = math.ceil(share / LONGEST_BLOCK)
    rows = math.ceil(share / blocks)
    rounded_up = -(-rows // ROW_STEP) * ROW_STEP
    return min(tokens, rounded_up)


def grouped_ffn(
    x_ND: Float[Array, "N D"], chosen_NX: Int[Array, "N X"], weights: Experts
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs every (token, choice) through its expert.

    Args:
        x_ND: activations, bfloat16 or float32.
        chosen_NX: chosen experts of each token; >= E for padding.
        weights: gate, value and output projection, each (E, K, N).

    Returns:
        The results' rows, sorted by expert, and each assignment's row. Rows of a choice >= E are
        unspecified but finite. The number of blocks run depends on the routing, their shape does
        not.
    """
    tokens, chosen = chosen_NX.shape
    experts = weights[0].shape[0]
    block = block_rows(tokens, chosen, experts)
    chosen_A = chosen_NX.reshape(-1)
    order_A = jnp.argsort(chosen_A, stable=True)
    place_NX = jnp.argsort(order_A, stable=True).reshape(tokens, chosen)
    ends_E = jnp.searchsorted(chosen_A[order_A], jnp.arange(experts), side="right")
    token_A = jnp.pad(order_A // chosen, (0, block))  # the last block may reach beyond the end

    # Begun as the inputs, which any row may hold; from a constant, XLA for GPUs makes the buffers
    # of all layers at once, early.
    rows_AD = varying_like(x_ND[token_A], (weights, x_ND))
    for index in range(experts):
        begin = ends_E[index - 1] if index else jnp.zeros_like(ends_E[0])
        matrices = [expert_matrix(weight, index) for weight in weights]
        rows_AD = _run_expert(x_ND, rows_AD, token_A, (begin, ends_E[index]), matrices, block)
    return rows_AD, place_NX


def expert_matrix(weight: Weight, index: int) -> ExpertMatrix:
    """Returns the matrix of one expert of a stacked weight."""
    if isinstance(weight, jax.Array):
        return weight[index]
    return weight.expert(index)


@partial(jax.jit, static_argnames="block")  # traced once for all experts
def _run_expert(
    x_ND: Array,
    rows_AD: Array,
    token_A: Array,
    span: tuple[Array, Array],
    weights: list[ExpertMatrix],
    block: int,
) -> Array:
    """Returns `rows_AD` with the rows of one expert, span[0] <= row < span[1], computed.

    Later rows may be overwritten.
    """
    begin, end = span

    def run_block(number: Array, rows_AD: Array) -> Array:
        first = begin + number * block
        tokens = jax.lax.dynamic_slice_in_dim(token_A, first, block)
        result = gated_ffn(x_ND[tokens], *weights)
        # rows beyond the expert's last are some neighbour's: the experts that follow write over
        # them
        return jax.lax.dynamic_update_slice_in_dim(rows_AD, result, first, axis=0)

    blocks = (end - begin + block - 1) // block
    computed_AD: Array = jax.lax.fori_loop(0, blocks, run_block, rows_AD)
    return computed_AD


def varying_like(x: Array, reference: object) -> Array:
    """Returns `x` marked as differing between devices wherever an array of `reference` does.

    `shard_map` requires it of a loop's state.
    """
    axes: frozenset[str] = frozenset()
    for leaf in jax.tree.leaves(reference):
        axes |= jax.typeof(leaf).manual_axis_type.varying
    axes -= jax.typeof(x).manual_axis_type.varying
    return jax.lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x


def gated_ffn(
    x_ND: Float[Array, "N D"], w_in: ExpertMatrix, w_value: ExpertMatrix, w_out: ExpertMatrix
) -> Float[Array, "N D"]:
    """Returns linear_1(gelu(linear(x)) * linear_v(x)) for one expert, in the type of `x`.

    Gelu and its product in float32.
    """
    gate = jax.nn.gelu(expert_matmul(x_ND, w_in), approximate=True)
    hidden = gate * expert_matmul(x_ND, w_value)
    return expert_matmul(hidden.astype(x_ND.dtype), w_out).astype(x_ND.dtype)
