"""Attention over pages on NVIDIA GPUs: one Pallas kernel for Triton, for decode and for prefill.

Input and output as `interface.Attend` says. A program of the grid takes queries of one sequence
that share a key/value head, and one part of the sequence's page table. It reads these pages where
they lie, no further than the sequence is long, with a running softmax; the parts are put together
afterwards:

    table of a sequence    [ p p p p │ p p p p │ p p · · │ · · · · ]     · : beyond its length, not read
    parts                    part 0    part 1    part 2    part 3: ends at once
                                └────────┴─────────┴───▶ max, sum and weighted values of each ─▶ result

Rows: the queries of one key/value head in a sequence's T new tokens, T x H/K of them, padded to
what the tensor cores take. Knows no modules, no mesh and nothing of who owns a page.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from actors.kernels.interface import Placement
from actors.kernels.xla.attention import LOGIT_CAP, MASKED
from actors.protocol.errors import ModelError

KEYS = 64  # cache positions of one step of the running softmax
# wanted in the grid, about four for each multiprocessor: sequences are read in parts when there are
# fewer
PROGRAMS = 512
LONGEST_ROWS = 128


class Shape(NamedTuple):
    """How the work is cut."""

    rows: int  # queries of one program
    row_blocks: int  # programs for the queries of one sequence and head
    pages: int  # of one step of the running softmax
    steps: int  # of one part
    parts: int


def cut(queries: int, sequences: int, heads: int, table: int, page_size: int) -> Shape:
    """Returns how to cut `queries` queries of each of `sequences` x `heads` over page tables of `table` entries.

    Raises:
        ModelError: the kernel cannot read pages of this size.
    """
    if page_size & (page_size - 1) or page_size > KEYS:
        raise ModelError(
            f"attention on a GPU: page_size must be a power of two of at most {KEYS}, got "
            f"{page_size}"
        )
    rows = min(LONGEST_ROWS, max(16, pl.next_power_of_2(queries)))
    row_blocks = pl.cdiv(queries, rows)
    pages = KEYS // page_size
    steps = pl.cdiv(table, pages)
    wanted = max(1, PROGRAMS // (sequences * heads * row_blocks))
    # a part of one step would cost more than it saves
    part_steps = pl.cdiv(steps, min(wanted, pl.cdiv(steps, 2)))
    return Shape(rows, row_blocks, pages, part_steps, pl.cdiv(steps, part_steps))


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
    shape = cut(t * group, b, kv_heads, placement.pages_BJ.shape[1], page_size)
    padding = shape.rows * shape.row_blocks - t * group
    q_BKRC = (
        q_BTHC.reshape(b, t, kv_heads, group, c).swapaxes(1, 2).reshape(b, kv_heads, t * group, c)
    )
    q_BKRC = jnp.pad(q_BKRC, ((0, 0), (0, 0), (0, padding), (0, 0)))
    parts = _parts(q_BKRC, keys, values, placement, shape, group, multiplier, interpret=interpret)
    merged_BKRC = _merge(*parts).astype(q_BTHC.dtype)[:, :, : t * group]
    return merged_BKRC.reshape(b, kv_heads, t, group, c).swapaxes(1, 2).reshape(b, t, h, c)


def _parts(
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
    """Returns weighted values [parts, B, K, R, C], largest logit and sum of weights [parts, B, K, R] of each part, float32."""
    b, kv_heads, rows, c = q_BKRC.shape
    page_size = keys.shape[1]
    entries = shape.parts * shape.steps * shape.pages
    missing = entries - placement.pages_BJ.shape[1]
    table_BJ = jnp.pad(placement.pages_BJ, ((0, 0), (0, missing)))
    live_BS = jnp.pad(placement.live_BS.astype(jnp.int8), ((0, 0), (0, missing * page_size)))
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    pages = pl.BlockSpec((keys.shape[0], page_size, None, c), lambda _, k, __: (0, 0, k, 0))
    per_row = pl.BlockSpec(
        (None, None, None, shape.rows),
        lambda i, k, p: (p, i // shape.row_blocks, k, i % shape.row_blocks),
    )
    block = pl.BlockSpec(
        (None, None, shape.rows, c),
        lambda i, k, _: (i // shape.row_blocks, k, i % shape.row_blocks, 0),
    )
    out = pl.BlockSpec(
        (None, None, None, shape.rows, c),
        lambda i, k, p: (p, i // shape.row_blocks, k, i % shape.row_blocks, 0),
    )
    sums = jax.ShapeDtypeStruct((shape.parts, b, kv_heads, rows), jnp.float32)
    return pl.pallas_call(
        partial(_kernel, shape=shape, group=group, multiplier=multiplier),
        out_shape=(
            jax.ShapeDtypeStruct((shape.parts, b, kv_heads, rows, c), jnp.float32),
            sums,
            sums,
        ),
        grid=(b * shape.row_blocks, kv_heads, shape.parts),
        in_specs=[anywhere, anywhere, anywhere, anywhere, block, pages, pages],
        out_specs=(out, per_row, per_row),
        compiler_params=plgpu.CompilerParams(
            num_warps=4 if shape.rows < LONGEST_ROWS else 8, num_stages=3
        ),
        interpret=interpret,
        name=f"paged_attention_{shape.rows}_rows_{shape.parts}_parts",
    )(table_BJ, placement.length_B, placement.positions_BT[:, 0], live_BS, q_BKRC, keys, values)


def _kernel(
    table_ref: Any, length_ref: Any, start_ref: Any, live_ref: Any, q_ref: Any, k_ref: Any, v_ref: Any,
    out_ref: Any, peak_ref: Any, sum_ref: Any, *, shape: Shape, group: int, multiplier: float | int,
) -> None:  # fmt: skip
    sequence, row_block = pl.program_id(0) // shape.row_blocks, pl.program_id(0) % shape.row_blocks
    width = shape.pages * k_ref.shape[1]
    q = q_ref[...]
    position_R = start_ref[sequence] + (row_block * shape.rows + jnp.arange(shape.rows)) // group
    first = pl.program_id(2) * shape.steps

    def body(step: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, peak, total = carry
        page = table_ref[sequence, pl.ds(step * shape.pages, shape.pages)]
        live = live_ref[sequence, pl.ds(step * width, width)] != 0
        key = k_ref[page].reshape(width, q.shape[1])
        # a weight of zero does not silence a NaN, so rows nobody may see are cleared
        value = jnp.where(live[:, None], v_ref[page].reshape(width, q.shape[1]), 0)
        capped = LOGIT_CAP * jnp.tanh(_dot(q, key.T) * (multiplier / LOGIT_CAP))
        visible = live[None, :] & (
            (step * width + jnp.arange(width))[None, :] <= position_R[:, None]
        )
        logits = jnp.where(visible, capped, MASKED)
        higher = jnp.maximum(peak, jnp.max(logits, axis=1))
        kept = jnp.exp(peak - higher)
        weights = jnp.where(visible, jnp.exp(logits - higher[:, None]), 0)
        out = out * kept[:, None] + _dot(weights.astype(value.dtype), value)
        return out, higher, total * kept + jnp.sum(weights, axis=1)

    nothing = jnp.zeros((shape.rows, q.shape[1]), jnp.float32)
    begun = (
        nothing,
        jnp.full((shape.rows,), MASKED, jnp.float32),
        jnp.zeros((shape.rows,), jnp.float32),
    )
    last = jnp.minimum(first + shape.steps, pl.cdiv(length_ref[sequence], width))
    out_ref[...], peak_ref[...], sum_ref[...] = jax.lax.fori_loop(first, last, body, begun)


def _merge(out: Array, peak: Array, total: Array) -> Array:
    """Returns the softmax of all parts from each part's; zero where no key was visible in any."""
    share = jnp.exp(peak - jnp.max(peak, axis=0, keepdims=True))
    total = jnp.sum(total * share, axis=0)
    return jnp.sum(out * share[..., None], axis=0) / jnp.where(total > 0, total, 1)[..., None]


def _dot(x: Array, y: Array) -> Array:
    return plgpu.dot(x, y, precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None)
