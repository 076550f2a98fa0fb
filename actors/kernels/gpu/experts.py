"""The experts of a layer on NVIDIA GPUs: two grouped products over int8 weights, in Pallas.

Tokens are sorted by expert and cut into tiles of rows of one expert each. A program of the grid
computes a tile of rows and a tile of columns; it reads its expert's int8 weights from where they
lie, and widens them in registers only.

    assignments (token, choice), sorted   e0 e0 e0 e1 e3 e3 e3 e3 e3
    tiles of 2 rows                       [─────][──·][─·][─────][─────][─·] ·  ·  ·

    · : no row; a tile without rows ends at once

The number of tiles is fixed: enough for any routing. The scales are applied to float32 sums, so no
weight is rounded. No token is dropped and a row does not depend on other rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from actors.kernels.gpu.blocks import block_dot, load_block
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.routing import Tiles, group_by_expert
from actors.kernels.interface import Experts
from actors.kernels.xla import experts as xla_experts
from actors.kernels.xla.layout import DenseExperts
from actors.protocol.errors import ModelError

# Of 512 sequences in decode, two experts each.
MAX_DECODE_ASSIGNMENTS = 1024


class Tile(NamedTuple):
    """What a program computes: rows x columns, the contracted axis in steps of `depth`."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int  # of loads in flight


class LayerTiles(NamedTuple):
    """Tiles of both products of a layer; they have the same rows."""

    gate_value: Tile
    out: Tile


def layer_tiles(assignments: int, experts: int, dtype: DTypeLike) -> LayerTiles:
    """Returns the tiles for `assignments` rows with activations of `dtype`.

    With few rows, reading weights takes the time: narrow tiles, many loads in flight. A tile has
    about twice an expert's even share of rows, so that one mostly is enough, and at most 64 rows up
    to 1,024 assignments: tiles of 128 rows are half empty there, and fill a multiprocessor alone.
    With many rows, products take the time: square tiles. The output product keeps one sum for each
    column where the other keeps two, so its tiles are twice as wide where registers allow it: they
    read the activations half as often. Float32 products use no tensor cores: a thread keeps its
    operands in registers, which limits the size.
    """
    if dtype == jnp.float32:
        exact = Tile(rows=32, columns=64, depth=32, warps=8, stages=3)
        return LayerTiles(exact, exact)
    twice_share = pl.next_power_of_2(max(1, 2 * assignments // experts))
    max_rows = 128
    if assignments <= MAX_DECODE_ASSIGNMENTS:
        max_rows = 64
    rows = min(max_rows, max(16, twice_share))
    if rows <= 32:
        narrow = Tile(rows, columns=64, depth=128, warps=4, stages=4)
        return LayerTiles(narrow, Tile(rows, columns=128, depth=64, warps=4, stages=4))
    if rows <= 64:
        medium = Tile(rows, columns=128, depth=64, warps=4, stages=4)
        return LayerTiles(medium, medium)
    square = Tile(rows, columns=128, depth=64, warps=8, stages=3)
    return LayerTiles(square, Tile(rows, columns=256, depth=64, warps=8, stages=3))


def grouped_ffn(
    x_ND: Float[Array, "N D"],
    chosen_NX: Int[Array, "N X"],
    weights: Experts,
    *,
    interpret: bool = False,
    shapes: LayerTiles | None = None,
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs every (token, choice) through its expert.

    Args:
        x_ND: activations, bfloat16 or float32.
        chosen_NX: chosen experts of each token; >= E for padding.
        weights: gate, value and output projection, `TransposedExperts`; dense ones take the XLA
            path.
        interpret: interpret the kernels on any device of JAX, for tests.
        shapes: tiles of both products; None: `layer_tiles`.

    Returns:
        The results' rows, sorted by expert, and each assignment's row. Rows of a choice >= E are
        not written, so they may hold anything.

    Raises:
        ModelError: the weights are int8 in another layout than that of `gpu.layout`.
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
            f"experts on a GPU: got weights as {type(w_in).__name__}, expected TransposedExperts; "
            "call pack_for_device first"
        )
    experts = w_in.shape[0]
    assignments = chosen_NX.size
    if shapes is None:
        shapes = layer_tiles(assignments, experts, x_ND.dtype)
    grouping = group_by_expert(chosen_NX, experts, shapes.out.rows, interpret=interpret)
    run = partial(
        _grouped_product, tiles=grouping.tiles, assignments=assignments, interpret=interpret
    )
    hidden_AF = run(x_ND, grouping.token_A, (w_in, w_value), combine=_gate, tile=shapes.gate_value)
    rows_AD = run(hidden_AF, None, (w_out,), combine=_identity, tile=shapes.out)
    return rows_AD, grouping.place_NX


def _gate(gate: Array, value: Array) -> Array:
    return jax.nn.gelu(gate, approximate=True) * value


def _identity(product: Array) -> Array:
    return product


def _grouped_product(
    x_NK: Float[Array, "N K"],
    source_A: Int[Array, " A"] | None,
    weights: tuple[TransposedExperts, ...],
    *,
    combine: Callable[..., Array],
    tiles: Tiles,
    tile: Tile,
    assignments: int,
    interpret: bool,
) -> Float[Array, "A columns"]:
    """Returns `combine` of the products of row `source_A[a]` of x with each weight of a's expert.

    Without `source_A`, row a. The result has the type of x.
    """
    columns = weights[0].shape[2]
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    weight_arrays = jax.tree.leaves(weights)  # weight, scales, weight, scales …
    source = () if source_A is None else (source_A,)
    arguments = (*tiles, *source, x_NK, *weight_arrays)
    row_tiles = tiles.begin_M.shape[0]

    return pl.pallas_call(
        partial(_kernel, tile=tile, combine=combine, gathers=source_A is not None),
        out_shape=jax.ShapeDtypeStruct((assignments, columns), x_NK.dtype),
        # tiles of rows first: those of one expert run side by side and share the weights' columns
        # in the cache
        grid=(row_tiles, pl.cdiv(columns, tile.columns)),
        in_specs=[in_memory] * len(arguments),
        out_specs=in_memory,
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=interpret,
        name=f"grouped_{len(weights)}x_{tile.rows}_rows",
    )(*arguments)


def _kernel(
    expert_ref: Any,
    begin_ref: Any,
    end_ref: Any,
    *refs: Any,
    tile: Tile,
    combine: Callable[..., Array],
    gathers: bool,
) -> None:
    """Computes one tile.

    `refs` are those of the rows of x to take if it `gathers`, of x, of weights and scales in turn,
    and of the result.
    """
    number = pl.program_id(0)
    column_block = pl.program_id(1)
    begin = begin_ref[number]
    end = end_ref[number]

    @pl.when(begin < end)
    def _run() -> None:
        rows = begin + jnp.arange(tile.rows)
        columns = column_block * tile.columns + jnp.arange(tile.columns)
        if gathers:
            source_ref, x_ref, *weight_refs, out_ref = refs
            source = load_block(source_ref, (rows,), (rows < end,))
        else:
            x_ref, *weight_refs, out_ref = refs
            source = jnp.where(rows < end, rows, 0)
        pairs = list(zip(weight_refs[::2], weight_refs[1::2], strict=True))
        products = _products(x_ref, source, pairs, expert_ref[number], columns, tile)
        in_tile = (rows < end)[:, None] & (columns < out_ref.shape[1])[None, :]
        plgpu.store(
            out_ref.at[rows[:, None], columns[None, :]],
            combine(*products).astype(out_ref.dtype),
            mask=in_tile,
        )


def _products(
    x_ref: Any,
    source: Array,
    pairs: list[tuple[Any, Any]],
    expert: Array,
    columns: Array,
    tile: Tile,
) -> list[Array]:
    """Returns x[source] · weight[expert] in float32 for each (weight, scales).

    That is the sum of each group of rows, times its scale.
    """
    groups, width = pairs[0][1].shape[1:]
    depth = x_ref.shape[1] // groups  # of the contracted axis, one scale for each column
    step = min(tile.depth, max(16, pl.next_power_of_2(depth)))
    inside_N = None if width % tile.columns == 0 else columns < width

    def add_group(group: Any, totals: list[Array]) -> list[Array]:
        def add_step(index: Array, sums: list[Array]) -> list[Array]:
            offset = index * step + jnp.arange(step)
            inside_K = None if depth % step == 0 else offset < depth
            row_K = group * depth + offset
            x = load_block(x_ref, (source[:, None], row_K[None, :]), (None, inside_K))
            weights_NK = []
            for weight_ref, _ in pairs:
                place = (expert, columns[:, None], row_K[None, :])
                weights_NK.append(load_block(weight_ref, place, (inside_N, inside_K)))

            new_sums = []
            for total, w_NK in zip(sums, weights_NK, strict=True):
                new_sums.append(total + block_dot(x, w_NK.astype(x.dtype).T))
            return new_sums

        sums = jax.lax.fori_loop(0, pl.cdiv(depth, step), add_step, _zeros(tile, len(pairs)))
        scales = []
        for _, scales_ref in pairs:
            scale_N = load_block(scales_ref, (expert, group, columns), (inside_N,))
            scales.append(scale_N.astype(jnp.float32))

        new_totals = []
        for total, group_sum, scale_N in zip(totals, sums, scales, strict=True):
            new_totals.append(total + group_sum * scale_N[None, :])
        return new_totals

    if groups == 1:
        return add_group(0, _zeros(tile, len(pairs)))
    return jax.lax.fori_loop(0, groups, add_group, _zeros(tile, len(pairs)))


def _zeros(tile: Tile, count: int) -> list[Array]:
    return [jnp.zeros((tile.rows, tile.columns), jnp.float32) for _ in range(count)]
