"""Prototype of the experts' grouped products on Hopper GPUs, in Mosaic GPU instead of Triton.

Not used by the model: it has never run, as there was no GPU. test_mosaic_experts.py compiles it.

Weights are the first operand of the tensor cores' product and come from registers, so that
widened weights are never written to shared memory; activations are the second one:

    weights [N, K] int8 ─TMA─▶ shared ─▶ registers: int8 → bfloat16 ─┐
    rows    [A, K] bf16 ─TMA─▶ shared ──────────────────────────────┴▶ wgmma ─▶ float32 sums [N, A]

A warpgroup of its own loads; two compute, each half of a block's columns. The contracted axis of
the weights is shuffled once (`shuffle_contracted`), so that sixteen bytes that lie together are
what one thread's operands take, and widening needs no exchange between threads.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic.gpu import utils as mgpu_utils
from jax.experimental.mosaic.gpu.fragmented_array import (
    WGMMA_LAYOUT,
    FragmentedArray,
    Tiling,
)
from jax.experimental.pallas import mosaic_gpu as plgpu

QUAD = 4  # threads that hold a row of the operand
LOAD = 16  # numbers that a thread loads at once: bytes of the widest load
GROUP = QUAD * LOAD  # of the contracted axis: what the threads of a quad load at once
# As `plgpu.Layout.WGMMA_8BIT`, with loads four times as wide.
WEIGHT_LAYOUT = plgpu.Layout.TILED(
    Tiling(((64, GROUP), (16, GROUP), (8, GROUP), (LOAD,))),
    warp_dims=(-7,),
    lane_dims=(-3, -2),
    vector_dim=-1,
)
WARPGROUPS = 2  # that compute
LOADER_REGISTERS = 40
SWIZZLE_BYTES = 128


class Tile(NamedTuple):
    """Rows of a block, columns of a warpgroup, and steps of the contracted axis in flight."""

    rows: int
    columns: int
    depth: int
    steps: int


def shuffle_contracted(weight_NK: np.ndarray) -> np.ndarray:
    """Returns weights with the last axis in the order in which threads hold a wgmma's operand.

    Of every 16 numbers, which one wgmma contracts, thread q of four holds numbers 2q, 2q + 1,
    2q + 8 and 2q + 9. Those of four times 16 numbers become its bytes 16q to 16q + 15.
    """
    # of 64: eight times eight, each pairs of four threads
    groups = weight_NK.reshape(*weight_NK.shape[:-1], -1, LOAD // 2, QUAD, 2)
    return np.ascontiguousarray(groups.swapaxes(-3, -2)).reshape(weight_NK.shape)


def grouped_product(
    expert_M: jax.Array,
    x_AK: jax.Array,
    weights: Sequence[tuple[jax.Array, jax.Array]],
    *,
    combine: Callable[..., jax.Array],
    tile: Tile,
) -> jax.Array:
    """Returns `combine` of the products of rows with each weight of their expert, bfloat16 [A, N].

    Args:
        expert_M: the expert of each tile of rows.
        x_AK: rows, those of a tile together; a tile that is not full has rows of zeros.
        weights: shuffled weights [E, N, K], int8, and a scale for each column, [E, N] bfloat16.
        combine: function of the float32 products.
        tile: sizes of a block.
    """
    columns = weights[0][0].shape[1]
    block_columns = WARPGROUPS * tile.columns
    arrays = [array for pair in weights for array in pair]
    run = plgpu.kernel(
        partial(_block, tile=tile, combine=combine),
        out_type=jax.ShapeDtypeStruct((x_AK.shape[0], columns), x_AK.dtype),
        grid=(expert_M.shape[0], columns // block_columns),
        grid_names=("row_tile", "column_block"),
        num_threads=WARPGROUPS + 1,
        thread_name="warpgroup",
        scratch_types={
            "out_smem": plgpu.SMEM(
                (WARPGROUPS, tile.rows, tile.columns),
                x_AK.dtype,
                transforms=_transforms(x_AK.dtype),
            )
        },
    )
    return run(expert_M, x_AK, *arrays)


def _transforms(dtype: Any) -> tuple[Any, ...]:
    """Returns the layout in shared memory that TMA writes and wgmma reads without conflicts."""
    numbers = SWIZZLE_BYTES // jnp.dtype(dtype).itemsize
    return plgpu.TilingTransform((8, numbers)), plgpu.SwizzleTransform(SWIZZLE_BYTES)


def _block(
    expert_ref: Any,
    x_ref: Any,
    *refs: Any,
    out_smem: Any,
    tile: Tile,
    combine: Callable[..., jax.Array],
) -> None:
    """Computes one tile of rows and one block of columns."""
    *weight_refs, out_ref = refs
    row_tile = lax.axis_index("row_tile")
    warpgroup = lax.axis_index("warpgroup")
    expert = expert_ref[row_tile]
    block_columns = WARPGROUPS * tile.columns
    first_column = lax.axis_index("column_block") * block_columns
    own_column = first_column + warpgroup * tile.columns
    rows = pl.ds(row_tile * tile.rows, tile.rows)

    weights = [ref.at[expert, pl.ds(first_column, block_columns)] for ref in weight_refs[::2]]
    scales = [ref.at[expert] for ref in weight_refs[1::2]]
    weight_spec = plgpu.BlockSpec(
        (block_columns, tile.depth),
        lambda step: (0, step),
        transforms=_transforms(jnp.int8),
        memory_space=plgpu.SMEM,
    )
    row_spec = plgpu.BlockSpec(
        (tile.rows, tile.depth),
        lambda step: (0, step),
        transforms=_transforms(x_ref.dtype),
        memory_space=plgpu.SMEM,
    )

    def compute(add_all_steps: Callable[[Any], Any]) -> None:
        accumulator = plgpu.ACC((tile.columns, tile.rows), jnp.float32)

        @partial(pl.run_scoped, sums=[accumulator] * len(weights))
        def _store(sums: list[Any]) -> None:
            add_all_steps(sums)
            products = []
            for sum_ref, scale_ref in zip(sums, scales, strict=True):
                scale = plgpu.load(
                    scale_ref,
                    (pl.ds(own_column, tile.columns),),
                    layout=plgpu.Layout.WGMMA.reduce(1),
                    optimized=False,
                ).astype(jnp.float32)
                sums_NR = sum_ref[...]
                products.append(sums_NR * lax.broadcast_in_dim(scale, sums_NR.shape, (0,)))
            result = combine(*products).astype(out_ref.dtype)
            own_smem = out_smem.at[warpgroup]
            transposed = plgpu.transpose_ref(own_smem, (1, 0))
            transposed[...] = plgpu.layout_cast(result, plgpu.Layout.WGMMA_TRANSPOSED)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(own_smem, out_ref.at[rows, pl.ds(own_column, tile.columns)])
            plgpu.wait_smem_to_gmem(0)

    def add_step(_: Any, *step_refs: Any) -> Any:
        *weight_smems, x_smem, sums = step_refs
        own = pl.ds(warpgroup * tile.columns, tile.columns)
        for weight_smem, sum_ref in zip(weight_smems, sums, strict=True):
            weight = plgpu.load(weight_smem, (own,), layout=WEIGHT_LAYOUT)
            operand = _as_operand(weight.astype(x_ref.dtype))
            plgpu.wgmma(sum_ref, operand, plgpu.transpose_ref(x_smem, (1, 0)))
        plgpu.wgmma_wait(0)
        return sums

    plgpu.emit_pipeline_warp_specialized(
        add_step,
        grid=(x_ref.shape[1] // tile.depth,),
        memory_registers=LOADER_REGISTERS,
        in_specs=[*[weight_spec] * len(weights), row_spec],
        wg_axis="warpgroup",
        num_compute_wgs=WARPGROUPS,
        max_concurrent_steps=tile.steps,
        compute_context=compute,
    )(*weights, x_ref.at[rows])


def _as_operand(weight: jax.Array) -> jax.Array:
    """Returns widened weights as the first operand of wgmma: the same registers, in its order."""

    @plgpu.inline_mgpu(
        arg_types=(WEIGHT_LAYOUT,),
        return_type=plgpu.ShapeDtypeStruct(weight.shape, weight.dtype, layout=plgpu.Layout.WGMMA),
    )
    def split(_: Any, loaded: FragmentedArray) -> FragmentedArray:
        registers = np.empty(WGMMA_LAYOUT.registers_shape(loaded.shape), dtype=object)
        for (row, group, *others), register in np.ndenumerate(loaded.registers):
            for pair in range(LOAD // 2):
                numbers = mgpu_utils.vector_slice(register, slice(2 * pair, 2 * pair + 2))
                registers[(row, LOAD // 2 * group + pair, *others)] = numbers
        return FragmentedArray(_registers=registers, _layout=WGMMA_LAYOUT, _is_signed=None)

    operand: jax.Array = split(weight)
    return operand


def gate(gate_NR: jax.Array, value_NR: jax.Array) -> jax.Array:
    return jax.nn.gelu(gate_NR, approximate=True) * value_NR


def main() -> None:
    """Compiles both products of Grok-1's shard for an H100; prints bytes of temporaries."""
    from jax.sharding import NamedSharding, PartitionSpec

    from actors.engine.planning.compile_only import TARGETS, make_mesh

    jax.config.update("jax_enable_compilation_cache", False)
    device = NamedSharding(make_mesh(TARGETS["h100"], 1, 1), PartitionSpec())

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=device)

    def product(count: int, width: int, columns: int, tile: Tile) -> int:
        weight = (array((8, columns, width), jnp.int8), array((8, columns), jnp.bfloat16))
        combine = gate if count == 2 else jnp.positive
        run = jax.jit(partial(grouped_product, combine=combine, tile=tile))
        x_AK = array((8 * tile.rows, width), jnp.bfloat16)
        compiled = run.lower(array((8,), jnp.int32), x_AK, [weight] * count).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    sizes = {
        "gate and value, 64 rows": product(2, 6144, 4096, Tile(64, 64, 128, 4)),
        "out, 64 rows": product(1, 4096, 6144, Tile(64, 64, 128, 4)),
        "gate and value, 128 rows": product(2, 6144, 4096, Tile(128, 64, 128, 3)),
        "out, 128 rows": product(1, 4096, 6144, Tile(128, 128, 128, 2)),
    }
    sys.stdout.write("\n" + json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main()
