"""The projections of attention on NVIDIA GPUs: products over int8 weights, rotation, page writes.

    x ─ product ─▶ partial sums of query, key and value ─ sum, rotate ─▶ queries, rows of pages
    attention's output ─ product ─▶ result

A program of the product computes a tile of rows and columns of one weight, and one part of the
contracted axis: with few rows there are too few tiles to fill a GPU. Int8 weights are widened in
registers only, and scales are applied to float32 sums.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from actors.kernels.gpu.blocks import block_dot, load_block
from actors.kernels.gpu.experts import Tile
from actors.kernels.interface import Pages, Placement, Projections
from actors.kernels.quantized import MatrixWeight, QuantizedWeight
from actors.kernels.xla import projections as xla_projections
from actors.kernels.xla.projections import rotation

PROGRAMS = 128  # about one for each multiprocessor
MAX_PARTS = 16
MAX_DECODE_TOKENS = 512
ROTATED_ROWS = 4  # tokens of a program that rotates


class Split(NamedTuple):
    """Parts of the contracted axis that programs sum, and the number of programs of tiles."""

    row_tiles: int
    column_tiles: int
    parts: int


def product_tile(tokens: int, dtype: DTypeLike) -> Tile:
    """Returns the tile of a product with `tokens` rows of `dtype`.

    At least 64 rows, however few are in use: tensor cores of Hopper then take the widened weights
    from shared memory. With fewer rows, threads load weights byte by byte. Float32 products use no
    tensor cores, so rows that are not in use cost time, and registers limit the size.
    """
    if dtype == jnp.float32:
        return Tile(rows=32, columns=64, depth=32, warps=4, stages=3)
    if tokens <= 64:
        return Tile(rows=64, columns=64, depth=128, warps=4, stages=4)
    if tokens <= MAX_DECODE_TOKENS:
        return Tile(rows=64, columns=128, depth=64, warps=4, stages=4)
    return Tile(rows=128, columns=128, depth=64, warps=8, stages=3)


def split_product(
    tokens: int, weights: Sequence[QuantizedWeight], tile: Tile, max_parts: int
) -> Split:
    """Returns how a product is divided among programs.

    Args:
        tokens: rows of the product.
        weights: matrices that have the same rows.
        tile: rows and columns of a program.
        max_parts: most parts of the contracted axis.
    """
    row_tiles = pl.cdiv(tokens, tile.rows)
    column_tiles = 0
    for weight in weights:
        column_tiles += pl.cdiv(weight.shape[1], tile.columns)

    rows = weights[0].shape[0]
    parts = 1
    while row_tiles * column_tiles * parts < PROGRAMS and 2 * parts <= max_parts:
        if rows < 4 * parts * tile.depth or not _is_divisible(2 * parts, weights):
            break
        parts *= 2
    return Split(row_tiles, column_tiles, parts)


def _is_divisible(parts: int, weights: Sequence[QuantizedWeight]) -> bool:
    """Returns whether each part has complete groups of scales, or is a part of one."""
    for weight in weights:
        groups = weight.scales.shape[0]
        if parts % groups and groups % parts:
            return False
        if weight.shape[0] % max(parts, groups):
            return False
    return True


def project(
    x_BTK: Float[Array, "B T K"], weight: MatrixWeight, *, interpret: bool = False
) -> Float[Array, "B T N"]:
    """Returns x · weight in the type of x; see `interface.Project`.

    Args:
        x_BTK: activations, bfloat16 or float32.
        weight: int8; a dense one takes the XLA path.
        interpret: interpret the kernel on any device of JAX, for tests.
    """
    if not isinstance(weight, QuantizedWeight):
        return xla_projections.project(x_BTK, weight)
    *leading, width = x_BTK.shape
    x_NK = x_BTK.reshape(-1, width)
    out_1NM = _product(x_NK, (weight,), 1, x_BTK.dtype, interpret=interpret)
    return out_1NM.reshape(*leading, -1)


def attention_inputs(
    x_BTD: Float[Array, "B T D"],
    weights: Projections,
    keys: Pages,
    values: Pages,
    placement: Placement,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B T H C"], Pages, Pages]:
    """Returns rotated queries, and the pages with new keys and values.

    See `interface.AttentionInputs`; dense weights take the XLA path.
    """
    query, key, value = weights
    if not (
        isinstance(query, QuantizedWeight)
        and isinstance(key, QuantizedWeight)
        and isinstance(value, QuantizedWeight)
    ):
        return xla_projections.attention_inputs(x_BTD, weights, keys, values, placement)
    x_ND = x_BTD.reshape(-1, x_BTD.shape[2])
    sums_SNM = _product(x_ND, (query, key, value), MAX_PARTS, jnp.float32, interpret=interpret)
    width = keys.shape[3]
    q_NHC, keys, values = _rotate_and_write(
        sums_SNM, x_BTD.dtype, query.shape[1] // width, keys, values, placement, interpret=interpret
    )
    return q_NHC.reshape(*x_BTD.shape[:2], -1, width), keys, values


def _product(
    x_NK: Float[Array, "N K"],
    weights: tuple[QuantizedWeight, ...],
    max_parts: int,
    dtype: DTypeLike,
    *,
    interpret: bool,
) -> Float[Array, "S N M"]:
    """Returns x · each weight, side by side, as sums of at most `max_parts` parts."""
    tokens = x_NK.shape[0]
    tile = product_tile(tokens, x_NK.dtype)
    split = split_product(tokens, weights, tile, max_parts)
    columns = sum(weight.shape[1] for weight in weights)
    arguments = (x_NK, *jax.tree.leaves(weights))  # weight, scales, weight, scales …
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        partial(_product_kernel, tile=tile, parts=split.parts),
        out_shape=jax.ShapeDtypeStruct((split.parts, tokens, columns), dtype),
        grid=(split.row_tiles, split.column_tiles, split.parts),
        in_specs=[in_memory] * len(arguments),
        out_specs=in_memory,
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=interpret,
        name=f"project_{len(weights)}x_{tile.rows}_rows_{split.parts}_parts",
    )(*arguments)


def _product_kernel(x_ref: Any, *refs: Any, tile: Tile, parts: int) -> None:
    """Computes a tile of one weight; `refs` are weights and scales in turn, and the result."""
    *weight_refs, out_ref = refs
    row_R = pl.program_id(0) * tile.rows + jnp.arange(tile.rows)
    column_block = pl.program_id(1)
    part = pl.program_id(2)

    def run(weight_ref: Any, scales_ref: Any, block: Any, first_column: int) -> None:
        column_N = block * tile.columns + jnp.arange(tile.columns)
        sums_RN = _part_sums(x_ref, weight_ref, scales_ref, row_R, column_N, part, parts, tile)
        is_inside = (row_R < x_ref.shape[0])[:, None] & (column_N < weight_ref.shape[1])[None, :]
        place = out_ref.at[part, row_R[:, None], (first_column + column_N)[None, :]]
        plgpu.store(place, sums_RN.astype(out_ref.dtype), mask=is_inside)

    first_block = 0
    first_column = 0
    for weight_ref, scales_ref in zip(weight_refs[::2], weight_refs[1::2], strict=True):
        columns = weight_ref.shape[1]
        blocks = pl.cdiv(columns, tile.columns)
        block = column_block - first_block
        is_own = (block >= 0) & (block < blocks)
        pl.when(is_own)(partial(run, weight_ref, scales_ref, block, first_column))
        first_block += blocks
        first_column += columns


def _part_sums(
    x_ref: Any,
    weight_ref: Any,
    scales_ref: Any,
    row_R: Array,
    column_N: Array,
    part: Any,
    parts: int,
    tile: Tile,
) -> Array:
    """Returns x · weight over one part of the contracted axis, float32."""
    tokens, rows = x_ref.shape
    columns = weight_ref.shape[1]
    groups = scales_ref.shape[0]
    pieces = max(parts, groups)  # of the contracted axis, one scale for each column
    part_pieces = pieces // parts
    depth = rows // pieces
    step = min(tile.depth, max(16, pl.next_power_of_2(depth)))
    inside_R = None if tokens % tile.rows == 0 else row_R < tokens
    inside_N = None if columns % tile.columns == 0 else column_N < columns

    def add_piece(number: Any, total_RN: Array) -> Array:
        piece = part * part_pieces + number

        def add_step(index: Array, sums_RN: Array) -> Array:
            offset_K = index * step + jnp.arange(step)
            inside_K = None if depth % step == 0 else offset_K < depth
            row_K = piece * depth + offset_K
            x_RK = load_block(x_ref, (row_R[:, None], row_K[None, :]), (inside_R, inside_K))
            w_KN = load_block(weight_ref, (row_K[:, None], column_N[None, :]), (inside_K, inside_N))
            return sums_RN + block_dot(x_RK, w_KN.astype(x_RK.dtype))

        zero_RN = jnp.zeros((tile.rows, tile.columns), jnp.float32)
        sums_RN = jax.lax.fori_loop(0, pl.cdiv(depth, step), add_step, zero_RN)
        scale_N = load_block(scales_ref, (piece * groups // pieces, column_N), (inside_N,))
        return total_RN + sums_RN * scale_N.astype(jnp.float32)[None, :]

    total_RN = jnp.zeros((tile.rows, tile.columns), jnp.float32)
    if part_pieces == 1:
        return add_piece(0, total_RN)
    return jax.lax.fori_loop(0, part_pieces, add_piece, total_RN)


def _rotate_and_write(
    sums_SNM: Float[Array, "S N M"],
    dtype: DTypeLike,
    heads: int,
    keys: Pages,
    values: Pages,
    placement: Placement,
    *,
    interpret: bool,
) -> tuple[Float[Array, "N H C"], Pages, Pages]:
    """Returns rotated queries, and the pages with rotated keys and with values.

    Args:
        sums_SNM: partial sums of queries, keys and values of all heads, side by side.
        dtype: type of activations: products are rounded to it before the rotation.
        heads: query heads.
        keys: pages of keys, updated in place.
        values: pages of values, updated in place.
        placement: positions of the tokens.
        interpret: interpret the kernel on any device of JAX, for tests.
    """
    tokens = sums_SNM.shape[1]
    kv_heads, width = keys.shape[2:]
    sin_BTC, cos_BTC = rotation(placement.positions_BT, width)
    arguments = (
        sums_SNM,
        sin_BTC.reshape(tokens, -1),
        cos_BTC.reshape(tokens, -1),
        placement.page_BT.reshape(-1),
        placement.offset_BT.reshape(-1),
        keys,
        values,
    )
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    q_NHC, keys, values = pl.pallas_call(
        partial(_rotate_kernel, dtype=dtype, heads=heads),
        out_shape=(
            jax.ShapeDtypeStruct((tokens, heads, width), dtype),
            jax.ShapeDtypeStruct(keys.shape, keys.dtype),
            jax.ShapeDtypeStruct(values.shape, values.dtype),
        ),
        grid=(pl.cdiv(tokens, ROTATED_ROWS), heads + 2 * kv_heads),
        in_specs=[in_memory] * len(arguments),
        out_specs=(in_memory,) * 3,
        input_output_aliases={5: 1, 6: 2},
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="rotate_and_write",
    )(*arguments)
    return q_NHC, keys, values


def _rotate_kernel(
    sums_ref: Any,
    sin_ref: Any,
    cos_ref: Any,
    page_ref: Any,
    offset_ref: Any,
    _keys_ref: Any,  # the same memory as `new_keys_ref`
    _values_ref: Any,
    q_ref: Any,
    new_keys_ref: Any,
    new_values_ref: Any,
    *,
    dtype: DTypeLike,
    heads: int,
) -> None:
    """Sums, rotates and stores a few tokens of one head of queries, keys or values."""
    parts, tokens, _ = sums_ref.shape
    pages, _, kv_heads, width = new_keys_ref.shape
    half = width // 2
    head = pl.program_id(1)
    row_R = pl.program_id(0) * ROTATED_ROWS + jnp.arange(ROTATED_ROWS)
    column_C = jnp.arange(pl.next_power_of_2(half))
    inside_R = None if tokens % ROTATED_ROWS == 0 else row_R < tokens
    inside_C = None if half == column_C.size else column_C < half
    inside = (inside_R, inside_C)

    def load_half(number: int) -> Array:
        """Returns a half of the head's columns, rounded to the type of activations."""
        column = head * width + number * half + column_C
        total_RC = jnp.zeros((ROTATED_ROWS, column_C.size), jnp.float32)
        for part in range(parts):
            total_RC += load_block(sums_ref, (part, row_R[:, None], column[None, :]), inside)
        return total_RC.astype(dtype).astype(jnp.float32)

    first_RC = load_half(0)
    second_RC = load_half(1)
    sin_RC = load_block(sin_ref, (row_R[:, None], column_C[None, :]), inside)
    cos_RC = load_block(cos_ref, (row_R[:, None], column_C[None, :]), inside)
    is_inside_RC = (row_R < tokens)[:, None] & (column_C < half)[None, :]
    rotated = (
        first_RC * cos_RC - second_RC * sin_RC,
        second_RC * cos_RC + first_RC * sin_RC,
    )

    @pl.when(head < heads)
    def _store_queries() -> None:
        for number, half_RC in enumerate(rotated):
            column = number * half + column_C
            place = q_ref.at[row_R[:, None], head, column[None, :]]
            plgpu.store(place, half_RC.astype(dtype), mask=is_inside_RC)

    def write(pages_ref: Any, kv_head: Any, halves: tuple[Array, Array]) -> None:
        page_R = load_block(page_ref, (row_R,), (inside_R,), other=pages)
        offset_R = load_block(offset_ref, (row_R,), (inside_R,))
        # padding has a page that does not exist
        is_written_RC = is_inside_RC & (page_R < pages)[:, None]
        for number, half_RC in enumerate(halves):
            column = number * half + column_C
            place = pages_ref.at[page_R[:, None], offset_R[:, None], kv_head, column[None, :]]
            stored_RC = half_RC.astype(dtype).astype(pages_ref.dtype)
            plgpu.store(place, stored_RC, mask=is_written_RC)

    is_key = (head >= heads) & (head < heads + kv_heads)
    pl.when(is_key)(partial(write, new_keys_ref, head - heads, rotated))
    is_value = head >= heads + kv_heads
    values = (first_RC, second_RC)
    pl.when(is_value)(partial(write, new_values_ref, head - heads - kv_heads, values))
