"""Attention over pages on NVIDIA GPUs: one Pallas (Triton) kernel for prefill and decode.

Input and output as `interface.Attend` describes. A program of the grid takes queries of one
sequence that share a key/value head, and one part of the sequence's page table. It reads these
pages where they lie, up to the end of the sequence, with a running softmax; the parts are merged
afterwards:

    table of a sequence    [ p p p p │ p p p p │ p p · · │ · · · · ]   · : beyond its end, not read
    parts                    part 0    part 1    part 2    part 3: ends at once
                                └────────┴─────────┴───▶ max, sum, weighted values of each ─▶ result

Rows: the queries of one key/value head in a sequence's T new tokens, T x H/K of them, padded to
what the tensor cores take.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from actors.kernels.gpu.blocks import block_dot
from actors.kernels.interface import Placement
from actors.kernels.xla.attention import LOGIT_CAP, MASKED
from actors.protocol.errors import ModelError

STEP_KEYS = 64  # cache positions of one step of the running softmax
# Wanted in the grid, about four for each multiprocessor: sequences are read in parts when there are
# fewer.
PROGRAMS = 512
MAX_ROWS = 128


class Shape(NamedTuple):
    """How the work is divided."""

    rows: int  # queries of one program
    row_blocks: int  # programs for the queries of one sequence and head
    pages: int  # of one step of the running softmax
    steps: int  # of one part
    parts: int


def divide(queries: int, sequences: int, heads: int, table: int, page_size: int) -> Shape:
    """Returns how to divide the work.

    Args:
        queries: queries of each sequence and key/value head.
        sequences: sequences of the call.
        heads: key/value heads.
        table: entries of a page table.
        page_size: cache positions of a page.

    Raises:
        ModelError: the kernel cannot read pages of this size.
    """
    if page_size & (page_size - 1) or page_size > STEP_KEYS:
        raise ModelError(
            f"attention on a GPU: page_size must be a power of two of at most {STEP_KEYS}, got "
            f"{page_size}"
        )
    rows = min(MAX_ROWS, max(16, pl.next_power_of_2(queries)))
    row_blocks = pl.cdiv(queries, rows)
    step_pages = STEP_KEYS // page_size
    table_steps = pl.cdiv(table, step_pages)
    wanted_parts = max(1, PROGRAMS // (sequences * heads * row_blocks))
    # a part of one step would cost more than it saves
    parts = min(wanted_parts, pl.cdiv(table_steps, 2))
    part_steps = pl.cdiv(table_steps, parts)
    return Shape(rows, row_blocks, step_pages, part_steps, pl.cdiv(table_steps, part_steps))


def attend(
    q_BTHC: Float[Array, "B T H C"],
    keys: Float[Array, "P Z K C"],
    values: Float[Array, "P Z K C"],
    placement: Placement,
    multiplier: float | int,
    *,
    interpret: bool = False,
) -> Float[Array, "B T H C"]:
    """Returns softmax(30 tanh(q·k x multiplier / 30)) · v over the visible positions.

    Raises:
        ModelError: head width or page size are not a power of two that the kernel takes.
    """
    b, t, h, c = q_BTHC.shape
    _, page_size, kv_heads, _ = keys.shape
    if c & (c - 1) or c < 16:
        raise ModelError(
            f"attention on a GPU: key_size must be a power of two of at least 16, got {c}"
        )
    group = h // kv_heads
    queries = t * group
    shape = divide(queries, b, kv_heads, placement.pages_BJ.shape[1], page_size)
    padding = shape.rows * shape.row_blocks - queries

    q_BKTGC = q_BTHC.reshape(b, t, kv_heads, group, c).swapaxes(1, 2)
    q_BKRC = q_BKTGC.reshape(b, kv_heads, queries, c)
    q_BKRC = jnp.pad(q_BKRC, ((0, 0), (0, 0), (0, padding), (0, 0)))
    parts = _attend_parts(
        q_BKRC, keys, values, placement, shape, group, multiplier, interpret=interpret
    )
    out_BKRC = _merge(*parts).astype(q_BTHC.dtype)[:, :, :queries]
    return out_BKRC.reshape(b, kv_heads, t, group, c).swapaxes(1, 2).reshape(b, t, h, c)


def _attend_parts(
    q_BKRC: Array,
    keys: Array,
    values: Array,
    placement: Placement,
    shape: Shape,
    group: int,
    multiplier: float | int,
    *,
    interpret: bool,
) -> tuple[Array, Array, Array]:
    """Returns the running softmax of each part, float32.

    Weighted values [parts, B, K, R, C], largest logit and sum of weights [parts, B, K, R].
    """
    b, kv_heads, rows, c = q_BKRC.shape
    page_size = keys.shape[1]
    entries = shape.parts * shape.steps * shape.pages
    missing = entries - placement.pages_BJ.shape[1]
    table_BJ = jnp.pad(placement.pages_BJ, ((0, 0), (0, missing)))
    live_BS = jnp.pad(placement.live_BS.astype(jnp.int8), ((0, 0), (0, missing * page_size)))

    def sequence_and_block(index: Any) -> tuple[Any, Any]:
        return index // shape.row_blocks, index % shape.row_blocks

    def queries_index(index: Any, head: Any, _: Any) -> tuple[Any, ...]:
        sequence, row_block = sequence_and_block(index)
        return sequence, head, row_block, 0

    def row_index(index: Any, head: Any, part: Any) -> tuple[Any, ...]:
        sequence, row_block = sequence_and_block(index)
        return part, sequence, head, row_block

    def out_index(index: Any, head: Any, part: Any) -> tuple[Any, ...]:
        return (*row_index(index, head, part), 0)

    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    pages = pl.BlockSpec((keys.shape[0], page_size, None, c), lambda _, head, __: (0, 0, head, 0))
    queries = pl.BlockSpec((None, None, shape.rows, c), queries_index)
    per_row = pl.BlockSpec((None, None, None, shape.rows), row_index)
    out = pl.BlockSpec((None, None, None, shape.rows, c), out_index)
    out_shape = jax.ShapeDtypeStruct((shape.parts, b, kv_heads, rows, c), jnp.float32)
    row_shape = jax.ShapeDtypeStruct((shape.parts, b, kv_heads, rows), jnp.float32)
    warps = 4 if shape.rows < MAX_ROWS else 8

    return pl.pallas_call(
        partial(_kernel, shape=shape, group=group, multiplier=multiplier),
        out_shape=(out_shape, row_shape, row_shape),
        grid=(b * shape.row_blocks, kv_heads, shape.parts),
        in_specs=[in_memory, in_memory, in_memory, in_memory, queries, pages, pages],
        out_specs=(out, per_row, per_row),
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=3),
        interpret=interpret,
        name=f"paged_attention_{shape.rows}_rows_{shape.parts}_parts",
    )(table_BJ, placement.length_B, placement.positions_BT[:, 0], live_BS, q_BKRC, keys, values)


def _kernel(
    table_ref: Any,
    length_ref: Any,
    start_ref: Any,
    live_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    out_ref: Any,
    peak_ref: Any,
    sum_ref: Any,
    *,
    shape: Shape,
    group: int,
    multiplier: float | int,
) -> None:
    """Attends with the queries of one block, one head and one part of a page table."""
    sequence = pl.program_id(0) // shape.row_blocks
    row_block = pl.program_id(0) % shape.row_blocks
    step_width = shape.pages * k_ref.shape[1]
    q = q_ref[...]
    row_R = row_block * shape.rows + jnp.arange(shape.rows)
    position_R = start_ref[sequence] + row_R // group
    first = pl.program_id(2) * shape.steps

    def body(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, peak, total = carry
        page = table_ref[sequence, pl.ds(step * shape.pages, shape.pages)]
        live = live_ref[sequence, pl.ds(step * step_width, step_width)] != 0
        key = k_ref[page].reshape(step_width, q.shape[1])
        # a weight of zero does not silence a NaN, so rows that no query may see are cleared
        value = jnp.where(live[:, None], v_ref[page].reshape(step_width, q.shape[1]), 0)

        capped = LOGIT_CAP * jnp.tanh(block_dot(q, key.T) * (multiplier / LOGIT_CAP))
        position_S = step * step_width + jnp.arange(step_width)
        visible = live[None, :] & (position_S[None, :] <= position_R[:, None])
        logits = jnp.where(visible, capped, MASKED)

        new_peak = jnp.maximum(peak, jnp.max(logits, axis=1))
        rescale = jnp.exp(peak - new_peak)
        weights = jnp.where(visible, jnp.exp(logits - new_peak[:, None]), 0)
        out = out * rescale[:, None] + block_dot(weights.astype(value.dtype), value)
        return out, new_peak, total * rescale + jnp.sum(weights, axis=1)

    start = (
        jnp.zeros((shape.rows, q.shape[1]), jnp.float32),
        jnp.full((shape.rows,), MASKED, jnp.float32),
        jnp.zeros((shape.rows,), jnp.float32),
    )
    last = jnp.minimum(first + shape.steps, pl.cdiv(length_ref[sequence], step_width))
    out_ref[...], peak_ref[...], sum_ref[...] = jax.lax.fori_loop(first, last, body, start)


def _merge(out: Array, peak: Array, total: Array) -> Array:
    """Returns the softmax of all parts from each part's; zero where no key was visible in any."""
    share = jnp.exp(peak - jnp.max(peak, axis=0, keepdims=True))
    total = jnp.sum(total * share, axis=0)
    nonzero_total = jnp.where(total > 0, total, 1)
    return jnp.sum(out * share[..., None], axis=0) / nonzero_total[..., None]
