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
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from actors.kernels.gpu.blocks import block_dot, load_block
from actors.kernels.interface import Placement
from actors.kernels.xla.attention import LOGIT_CAP, MASKED
from actors.protocol.errors import ModelError

STEP_KEYS = 64  # cache positions of one step of the running softmax
# Float32 products use no tensor cores: a thread keeps its operands in registers.
EXACT_STEP_KEYS = 16
EXACT_ROWS = 16
# Wanted in the grid, about four for each multiprocessor: sequences are read in parts when there are
# fewer.
PROGRAMS = 512
MAX_ROWS = 128
MERGED_ROWS = 16  # queries of one program that merges parts


class Shape(NamedTuple):
    """How the work is divided."""

    rows: int  # queries of one program
    row_blocks: int  # programs for the queries of one sequence and head
    pages: int  # of one step of the running softmax
    steps: int  # of one part
    parts: int


def divide(
    queries: int, sequences: int, heads: int, table: int, page_size: int, dtype: DTypeLike
) -> Shape:
    """Returns how to divide the work.

    Args:
        queries: queries of each sequence and key/value head.
        sequences: sequences of the call.
        heads: key/value heads.
        table: entries of a page table.
        page_size: cache positions of a page.
        dtype: type of queries, keys and values.

    Raises:
        ModelError: the kernel cannot read pages of this size.
    """
    if page_size & (page_size - 1) or page_size > STEP_KEYS:
        raise ModelError(
            f"attention on a GPU: page_size must be a power of two of at most {STEP_KEYS}, got "
            f"{page_size}"
        )
    rows = min(MAX_ROWS, max(16, pl.next_power_of_2(queries)))
    step_keys = STEP_KEYS
    if dtype == jnp.float32:
        rows = EXACT_ROWS
        step_keys = max(EXACT_STEP_KEYS, page_size)
    row_blocks = pl.cdiv(queries, rows)
    step_pages = step_keys // page_size
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
    queries = t * h // kv_heads
    table = placement.pages_BJ.shape[1]
    shape = divide(queries, b, kv_heads, table, page_size, q_BTHC.dtype)
    attend_parts = partial(_attend_parts, q_BTHC, keys, values, placement, shape, multiplier)
    if shape.parts == 1:
        (out_BTHC,) = attend_parts(interpret=interpret)
        return out_BTHC
    return _merge(attend_parts(interpret=interpret), q_BTHC, kv_heads, interpret=interpret)


def _attend_parts(
    q_BTHC: Array,
    keys: Array,
    values: Array,
    placement: Placement,
    shape: Shape,
    multiplier: float | int,
    *,
    interpret: bool,
) -> tuple[Array, ...]:
    """Returns the result if there is one part, else the running softmax of each part, float32.

    Weighted values [parts, B, K, R, C], largest logit and sum of weights [parts, B, K, R].
    """
    b, _, h, c = q_BTHC.shape
    page_size, kv_heads = keys.shape[1:3]
    entries = shape.parts * shape.steps * shape.pages
    missing = entries - placement.pages_BJ.shape[1]
    table_BJ = jnp.pad(placement.pages_BJ, ((0, 0), (0, missing)))
    live_BS = jnp.pad(placement.live_BS.astype(jnp.int8), ((0, 0), (0, missing * page_size)))

    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    pages = pl.BlockSpec((keys.shape[0], page_size, None, c), lambda _, head, __: (0, 0, head, 0))
    out_shapes = [jax.ShapeDtypeStruct(q_BTHC.shape, q_BTHC.dtype)]
    if shape.parts > 1:
        part_rows = (shape.parts, b, kv_heads, shape.rows * shape.row_blocks)
        per_row = jax.ShapeDtypeStruct(part_rows, jnp.float32)
        out_shapes = [jax.ShapeDtypeStruct((*part_rows, c), jnp.float32), per_row, per_row]
    warps = 4
    if shape.rows == MAX_ROWS or q_BTHC.dtype == jnp.float32:
        warps = 8

    out: tuple[Array, ...] = pl.pallas_call(
        partial(_kernel, shape=shape, group=h // kv_heads, multiplier=multiplier),
        out_shape=tuple(out_shapes),
        grid=(b * shape.row_blocks, kv_heads, shape.parts),
        in_specs=[in_memory] * 5 + [pages, pages],
        out_specs=(in_memory,) * len(out_shapes),
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=3),
        interpret=interpret,
        name=f"paged_attention_{shape.rows}_rows_{shape.parts}_parts",
    )(table_BJ, placement.length_B, placement.positions_BT[:, 0], live_BS, q_BTHC, keys, values)
    return out


class QueryBlock(NamedTuple):
    """The queries of one program: rows of [T, H, C] in the order of tokens, then of heads."""

    token_R: Array
    head_R: Array
    inside_R: Array | None  # false for rows beyond the last query; None: all are inside

    @classmethod
    def at(cls, row_R: Array, kv_head: Array, group: int, shape: tuple[int, ...]) -> "QueryBlock":
        """Returns the queries `row_R` of those that share a key/value head.

        Args:
            row_R: rows among the T x `group` queries of the head.
            kv_head: the key/value head.
            group: query heads of a key/value head.
            shape: of the array of queries, [B, T, H, C].
        """
        queries = shape[1] * group
        is_inside_R = None if queries % row_R.size == 0 else row_R < queries
        return cls(row_R // group, kv_head * group + row_R % group, is_inside_R)

    def place(self, sequence: Array, width: int) -> tuple[Array, ...]:
        """Returns the place of the rows of one sequence in an array [B, T, H, C]."""
        column_C = jnp.arange(width)[None, :]
        return sequence, self.token_R[:, None], self.head_R[:, None], column_C

    def store(self, out_ref: Any, sequence: Array, out_RC: Array) -> None:
        """Stores the results of one sequence into an array [B, T, H, C]."""
        mask = None
        if self.inside_R is not None:
            mask = jnp.broadcast_to(self.inside_R[:, None], out_RC.shape)
        place = out_ref.at[self.place(sequence, out_RC.shape[1])]
        plgpu.store(place, out_RC.astype(out_ref.dtype), mask=mask)


def _kernel(
    table_ref: Any,
    length_ref: Any,
    start_ref: Any,
    live_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    *out_refs: Any,
    shape: Shape,
    group: int,
    multiplier: float | int,
) -> None:
    """Attends with the queries of one block, one head and one part of a page table."""
    sequence = pl.program_id(0) // shape.row_blocks
    row_block = pl.program_id(0) % shape.row_blocks
    kv_head = pl.program_id(1)
    part = pl.program_id(2)
    step_width = shape.pages * k_ref.shape[1]
    row_R = row_block * shape.rows + jnp.arange(shape.rows)
    queries = QueryBlock.at(row_R, kv_head, group, q_ref.shape)
    q = load_block(q_ref, queries.place(sequence, q_ref.shape[3]), (queries.inside_R, None))
    position_R = start_ref[sequence] + row_R // group
    first = part * shape.steps

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
    out, peak, total = jax.lax.fori_loop(first, last, body, start)
    if shape.parts == 1:
        queries.store(out_refs[0], sequence, out / _nonzero(total)[:, None])
        return
    out_ref, peak_ref, sum_ref = out_refs
    place = (part, sequence, kv_head, row_R)
    column_C = jnp.arange(out.shape[1])
    plgpu.store(
        out_ref.at[part, sequence, kv_head, row_R[:, None], column_C[None, :]],
        out,
    )
    plgpu.store(peak_ref.at[place], peak)
    plgpu.store(sum_ref.at[place], total)


def _merge(
    parts: tuple[Array, ...], q_BTHC: Array, kv_heads: int, *, interpret: bool
) -> Float[Array, "B T H C"]:
    """Returns the softmax of all parts from each part's; zero where no key was visible in any."""
    b, _, h, _ = q_BTHC.shape
    row_blocks = parts[0].shape[3] // MERGED_ROWS
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    out_BTHC: Array = pl.pallas_call(
        partial(_merge_kernel, row_blocks=row_blocks, group=h // kv_heads),
        out_shape=jax.ShapeDtypeStruct(q_BTHC.shape, q_BTHC.dtype),
        grid=(b * row_blocks, kv_heads),
        in_specs=[in_memory] * 3,
        out_specs=in_memory,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name=f"merge_{parts[0].shape[0]}_parts",
    )(*parts)
    return out_BTHC


def _merge_kernel(
    parts_ref: Any, peak_ref: Any, sum_ref: Any, out_ref: Any, *, row_blocks: int, group: int
) -> None:
    """Merges the parts of a block of queries of one sequence and key/value head."""
    sequence = pl.program_id(0) // row_blocks
    row_block = pl.program_id(0) % row_blocks
    kv_head = pl.program_id(1)
    row_R = row_block * MERGED_ROWS + jnp.arange(MERGED_ROWS)
    parts, *_, width = parts_ref.shape
    column_C = jnp.arange(width)

    def add_part(part: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, peak, total = carry
        place = (part, sequence, kv_head, row_R)
        part_peak = plgpu.load(peak_ref.at[place])
        part_out = plgpu.load(
            parts_ref.at[part, sequence, kv_head, row_R[:, None], column_C[None, :]]
        )
        new_peak = jnp.maximum(peak, part_peak)
        rescale = jnp.exp(peak - new_peak)
        share = jnp.exp(part_peak - new_peak)
        new_total = total * rescale + plgpu.load(sum_ref.at[place]) * share
        return out * rescale[:, None] + part_out * share[:, None], new_peak, new_total

    start = (
        jnp.zeros((MERGED_ROWS, width), jnp.float32),
        jnp.full((MERGED_ROWS,), MASKED, jnp.float32),
        jnp.zeros((MERGED_ROWS,), jnp.float32),
    )
    out, _, total = jax.lax.fori_loop(0, parts, add_part, start)
    queries = QueryBlock.at(row_R, kv_head, group, out_ref.shape)
    queries.store(out_ref, sequence, out / _nonzero(total)[:, None])


def _nonzero(total: Array) -> Array:
    """Returns the sums of weights to divide by: 1 where no key was visible."""
    return jnp.where(total > 0, total, 1)
