"""The experts of a layer on NVIDIA GPUs: two grouped products over int8 weights, as Pallas kernels for Triton.

Input: activations, the chosen experts, this device's columns of all experts as int8 with scales.
Output: one row per (token, choice). Tokens are sorted by expert and cut into tiles of rows of one
expert each. A program of the grid computes a tile of rows and a tile of columns; it reads its
expert's int8 weights from where they lie, and they are widened in registers only.

    assignments (token, choice), sorted   e0 e0 e0 e1 e3 e3 e3 e3 e3
    tiles of 2 rows                       [─────][──·][─·][─────][─────][─·] ·  ·  ·     · : nobody's; a tile of none ends at once

The number of tiles is fixed: enough for any routing. The scales are applied to float32 sums, so no
weight is rounded. No token is dropped and a row does not depend on other rows. Knows no gates, no
modules and no mesh.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from actors.kernels.interface import Experts
from actors.kernels.quantized import DenseExperts, TransposedExperts
from actors.kernels.xla import experts as xla_experts
from actors.protocol.errors import ModelError


class Tile(NamedTuple):
    """What one program computes: a block of rows x columns, the contracted axis in steps of `depth`."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int  # of loads in flight


class Tiles(NamedTuple):
    """Which rows each tile has: begin <= row < end, of one expert.

    Begin = end for tiles that are not needed.
    """

    expert_M: Int[Array, " M"]
    begin_M: Int[Array, " M"]
    end_M: Int[Array, " M"]


def tile_shape(rows: int, experts: int) -> Tile:
    """Returns the tile for `rows` assignments: about twice an expert's even share of rows, so that one tile mostly is enough.

    With few rows, reading weights takes the time: narrow tiles, many loads in flight. With many,
    products do: square tiles.
    """
    share = min(128, max(16, pl.next_power_of_2(max(1, 2 * rows // experts))))
    if share <= 32:
        return Tile(share, columns=64, depth=128, warps=4, stages=4)
    if share <= 64:
        return Tile(share, columns=128, depth=64, warps=4, stages=4)
    return Tile(share, columns=128, depth=64, warps=8, stages=3)


def cut_tiles(ends_E: Int[Array, " E"], assignments: int, rows: int) -> Tiles:
    """Returns the tiles of `rows` rows over sorted assignments, expert e's rows ending at `ends_E[e]`; their number is fixed."""
    experts = ends_E.shape[0]
    begins_E = jnp.pad(ends_E[:-1], (1, 0))
    needed_E = (ends_E - begins_E + rows - 1) // rows
    up_to_EE = jnp.tri(experts, dtype=jnp.int32)
    # a cumulative sum and a search, as sums: a loop is many launches
    last_E = jnp.sum(up_to_EE * needed_E[None, :], axis=1)
    # the most that any routing needs
    count = min(assignments, (assignments + experts * (rows - 1)) // rows)
    tile_M = jnp.arange(count, dtype=jnp.int32)
    expert_M = jnp.sum(last_E[None, :] <= tile_M[:, None], axis=1, dtype=jnp.int32)
    used_M, expert_M = expert_M < experts, jnp.minimum(expert_M, experts - 1)
    begin_M = begins_E[expert_M] + (tile_M - (last_E - needed_E)[expert_M]) * rows
    end_M = jnp.minimum(ends_E[expert_M], begin_M + rows)
    return Tiles(expert_M, jnp.where(used_M, begin_M, 0), jnp.where(used_M, end_M, 0))


def grouped_ffn(
    x_ND: Float[Array, "N D"],
    chosen_NX: Int[Array, "N X"],
    weights: Experts,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs every (token, choice) through its expert.

    Rows of a choice >= E are not written, so they may hold anything.

    Args:
        x_ND: activations, bfloat16 or float32.
        chosen_NX: chosen experts of each token; >= E for padding.
        weights: gate, value and output projection, int8 with scales.
        interpret: run the kernels on whatever JAX runs on, to test them.

    Raises:
        ModelError: the weights are int8 as a checkpoint has them, not as `arrange` leaves them.
    """
    w_in, w_value, w_out = weights
    if isinstance(w_in, DenseExperts):
        return xla_experts.grouped_ffn(x_ND, chosen_NX, weights)
    if not (
        isinstance(w_in, TransposedExperts)
        and isinstance(w_value, TransposedExperts)
        and isinstance(w_out, TransposedExperts)
    ):
        raise ModelError(
            "experts on a GPU: expected weights that went through `arrange`, got "
            f"{type(w_in).__name__}"
        )
    tokens, chosen = chosen_NX.shape
    experts, assignments = w_in.shape[0], tokens * chosen
    order_A = jnp.argsort(chosen_NX.reshape(-1), stable=True).astype(jnp.int32)
    place_NX = jnp.argsort(order_A, stable=True).reshape(tokens, chosen)
    ends_E = jnp.sum(
        chosen_NX.reshape(-1, 1) <= jnp.arange(experts)[None, :], axis=0, dtype=jnp.int32
    )
    tile = tile_shape(assignments, experts)
    tiles = cut_tiles(ends_E, assignments, tile.rows)
    run = partial(_grouped, tiles=tiles, tile=tile, assignments=assignments, interpret=interpret)
    hidden_AF = run(x_ND, order_A // chosen, (w_in, w_value), combine=_gated)
    rows_AD = run(hidden_AF, jnp.arange(assignments, dtype=jnp.int32), (w_out,), combine=_same)
    return rows_AD, place_NX


def _gated(gate: Array, value: Array) -> Array:
    return jax.nn.gelu(gate, approximate=True) * value


def _same(product: Array) -> Array:
    return product


def _grouped(
    x_NK: Float[Array, "N K"],
    source_A: Int[Array, " A"],
    weights: tuple[TransposedExperts, ...],
    *,
    combine: Any,
    tiles: Tiles,
    tile: Tile,
    assignments: int,
    interpret: bool,
) -> Float[Array, "A columns"]:
    """Returns `combine` of the products of row `source_A[a]` of x with each weight of a's expert, in the type of x."""
    columns = weights[0].shape[2]
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    arguments = (*tiles, source_A, x_NK, *(part for weight in weights for part in weight))
    return pl.pallas_call(
        partial(_kernel, tile=tile, combine=combine),
        out_shape=jax.ShapeDtypeStruct((assignments, columns), x_NK.dtype),
        # tiles of rows first: those of one expert run side by side and share the weights' columns
        # in the cache
        grid=(tiles.begin_M.shape[0], pl.cdiv(columns, tile.columns)),
        in_specs=[anywhere] * len(arguments),
        out_specs=anywhere,
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=interpret,
        name=f"grouped_{len(weights)}x_{tile.rows}_rows",
    )(*arguments)


def _kernel(
    expert_ref: Any,
    begin_ref: Any,
    end_ref: Any,
    source_ref: Any,
    x_ref: Any,
    *refs: Any,
    tile: Tile,
    combine: Any,
) -> None:
    number, column_block = pl.program_id(0), pl.program_id(1)
    begin, end = begin_ref[number], end_ref[number]

    @pl.when(begin < end)
    def _run() -> None:
        *weight_refs, out_ref = refs
        rows = begin + jnp.arange(tile.rows)
        columns = column_block * tile.columns + jnp.arange(tile.columns)
        source = _load(source_ref, (rows,), (rows < end,))
        pairs = list(zip(weight_refs[::2], weight_refs[1::2], strict=True))
        products = _products(x_ref, source, pairs, expert_ref[number], columns, tile)
        kept = (rows < end)[:, None] & (columns < out_ref.shape[1])[None, :]
        plgpu.store(
            out_ref.at[rows[:, None], columns[None, :]],
            combine(*products).astype(out_ref.dtype),
            mask=kept,
        )


def _products(
    x_ref: Any,
    source: Array,
    pairs: list[tuple[Any, Any]],
    expert: Array,
    columns: Array,
    tile: Tile,
) -> list[Array]:
    """Returns x[source] · weight[expert] in float32 for each (weight, scales): the sum of each group of rows, times its scale."""
    groups, width = pairs[0][1].shape[1:]
    depth = x_ref.shape[1] // groups  # of the contracted axis, one scale for each column
    step = min(tile.depth, max(16, pl.next_power_of_2(depth)))
    inside_N = None if width % tile.columns == 0 else columns < width

    def of_group(group: Any, totals: list[Array]) -> list[Array]:
        def body(index: Array, sums: list[Array]) -> list[Array]:
            offset = index * step + jnp.arange(step)
            inside_K = None if depth % step == 0 else offset < depth
            at = group * depth + offset
            x = _load(x_ref, (source[:, None], at[None, :]), (None, inside_K))
            weights_NK = [
                _load(ref, (expert, columns[:, None], at[None, :]), (inside_N, inside_K))
                for ref, _ in pairs
            ]
            return [
                total + _dot(x, weight.astype(x.dtype).T)
                for total, weight in zip(sums, weights_NK, strict=True)
            ]

        sums = jax.lax.fori_loop(0, pl.cdiv(depth, step), body, _zeros(tile, len(pairs)))
        scales = [
            _load(ref, (expert, group, columns), (inside_N,)).astype(jnp.float32)
            for _, ref in pairs
        ]
        return [
            total + one * scale[None, :]
            for total, one, scale in zip(totals, sums, scales, strict=True)
        ]

    if groups == 1:
        return of_group(0, _zeros(tile, len(pairs)))
    return jax.lax.fori_loop(0, groups, of_group, _zeros(tile, len(pairs)))


def _zeros(tile: Tile, count: int) -> list[Array]:
    return [jnp.zeros((tile.rows, tile.columns), jnp.float32) for _ in range(count)]


def _load(ref: Any, index: tuple[Any, ...], inside: tuple[Array | None, ...]) -> Array:
    """Returns a block.

    Zero where one of the masks, one for each axis of the block, says no. Without masks none is
    computed.
    """
    masks = [
        mask.reshape([-1 if i == axis else 1 for i in range(len(inside))])
        for axis, mask in enumerate(inside)
        if mask is not None
    ]
    if not masks:
        return plgpu.load(ref.at[index])
    shape = jnp.broadcast_shapes(*(jnp.shape(part) for part in index))
    return plgpu.load(
        ref.at[index], mask=jnp.broadcast_to(reduce(jnp.logical_and, masks), shape), other=0
    )


def _dot(x: Array, y: Array) -> Array:
    return plgpu.dot(x, y, precision=jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None)
