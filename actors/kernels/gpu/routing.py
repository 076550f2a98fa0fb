"""Routing on NVIDIA GPUs: two small Pallas kernels between a norm and the experts.

`route` computes router logits, softmax and the chosen experts of each token. `group_by_expert`
sorts the assignments (token, choice) by expert and cuts them into tiles of rows of one expert each:

    chosen, token by token     3 0 │ 3 1 │ 0 3 │ 3 3 │ 0 3
    sorted by expert           0 0 0 1 3 3 3 3 3 3
    tiles of 2 rows            [─][·][·][─][─][─] ·  ·  ·          · : no row

A program of the second kernel places one block of assignments. It counts the assignments of all
blocks by itself, which costs less than waiting for the other programs.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float, Int

from actors.kernels.gpu.blocks import load_block

# Numbers that a program of the router multiplies at once: 32 of each thread, for each expert of 8.
ROUTER_BLOCK = 512
# Programs of the router that fill a GPU. With more rows than that a program takes several of them,
# as each program reads all of the router's weights.
ROUTER_PROGRAMS = 128
MAX_ROUTER_ROWS = 8
SORTED_BLOCK = 512  # assignments that a program places
WARPS = 4


class Tiles(NamedTuple):
    """Which rows each tile has: begin <= row < end, of one expert.

    Begin = end for tiles that are not needed.
    """

    expert_M: Int[Array, " M"]
    begin_M: Int[Array, " M"]
    end_M: Int[Array, " M"]


class Grouping(NamedTuple):
    """The assignments sorted by expert, those of padding last; the order of tokens is kept."""

    token_A: Int[Array, " A"]  # of each sorted assignment
    place_NX: Int[Array, "N X"]  # of each assignment among the sorted ones
    tiles: Tiles


def route(
    x_ND: Float[Array, "N D"],
    w_DE: Float[Array, "D E"],
    real_N: Bool[Array, " N"],
    chosen: int,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "N X"], Int[Array, "N X"]]:
    """Returns gates and ids of each token's experts; see `interface.Route`.

    Args:
        x_ND: activations, bfloat16 or float32.
        w_DE: weights of the router, float32.
        real_N: false for padding.
        chosen: experts of each token.
        interpret: interpret the kernel on any device of JAX, for tests.
    """
    tokens, width = x_ND.shape
    rows = router_rows(tokens)
    step = min(ROUTER_BLOCK // rows, pl.next_power_of_2(width))
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    gates_NX, chosen_NX = pl.pallas_call(
        partial(_route_kernel, rows=rows, step=step, chosen=chosen),
        out_shape=(
            jax.ShapeDtypeStruct((tokens, chosen), jnp.float32),
            jax.ShapeDtypeStruct((tokens, chosen), jnp.int32),
        ),
        grid=(pl.cdiv(tokens, rows),),
        in_specs=[in_memory] * 3,
        out_specs=(in_memory, in_memory),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=3),
        interpret=interpret,
        name=f"router_{rows}_rows",
    )(x_ND, w_DE, real_N.astype(jnp.int32))
    return gates_NX, chosen_NX


def router_rows(tokens: int) -> int:
    """Returns how many tokens a program of the router takes, a power of two."""
    share = max(1, tokens // ROUTER_PROGRAMS)
    return min(MAX_ROUTER_ROWS, pl.next_power_of_2(share))


def _route_kernel(
    x_ref: Any,
    w_ref: Any,
    real_ref: Any,
    gates_ref: Any,
    chosen_ref: Any,
    *,
    rows: int,
    step: int,
    chosen: int,
) -> None:
    """Routes the tokens of one program."""
    tokens, width = x_ref.shape
    experts = w_ref.shape[1]
    expert_E = jnp.arange(pl.next_power_of_2(experts))
    row_R = pl.program_id(0) * rows + jnp.arange(rows)
    inside_R = None if tokens % rows == 0 else row_R < tokens
    inside_E = None if experts == expert_E.size else expert_E < experts

    def add_step(index: Array, sums_RKE: Array) -> Array:
        column_K = index * step + jnp.arange(step)
        inside_K = None if width % step == 0 else column_K < width
        x_RK = load_block(x_ref, (row_R[:, None], column_K[None, :]), (inside_R, inside_K))
        w_KE = load_block(w_ref, (column_K[:, None], expert_E[None, :]), (inside_K, inside_E))
        return sums_RKE + x_RK.astype(jnp.float32)[:, :, None] * w_KE[None, :, :]

    zero_RKE = jnp.zeros((rows, step, expert_E.size), jnp.float32)
    sums_RKE = jax.lax.fori_loop(0, pl.cdiv(width, step), add_step, zero_RKE)
    logits_RE = jnp.sum(sums_RKE, axis=1)
    logits_RE = jnp.where((expert_E < experts)[None, :], logits_RE, -jnp.inf)

    shares_RE = jnp.exp(logits_RE - jnp.max(logits_RE, axis=1)[:, None])
    remaining_RE = shares_RE / jnp.sum(shares_RE, axis=1)[:, None]
    real_R = load_block(real_ref, (row_R,), (inside_R,)) != 0
    for choice in range(chosen):
        gate_R = jnp.max(remaining_RE, axis=1)
        is_best_RE = remaining_RE == gate_R[:, None]
        # ties go to the lower id
        best_R = jnp.min(jnp.where(is_best_RE, expert_E[None, :], experts), axis=1)
        remaining_RE = jnp.where(expert_E[None, :] == best_R[:, None], -1, remaining_RE)
        place = (row_R, jnp.full_like(row_R, choice))
        plgpu.store(gates_ref.at[place], gate_R, mask=inside_R)
        plgpu.store(chosen_ref.at[place], jnp.where(real_R, best_R, experts), mask=inside_R)


def max_tiles(assignments: int, experts: int, rows: int) -> int:
    """Returns the most tiles of `rows` rows that any routing of the assignments needs."""
    return min(assignments, (assignments + experts * (rows - 1)) // rows)


def group_by_expert(
    chosen_NX: Int[Array, "N X"], experts: int, tile_rows: int, *, interpret: bool = False
) -> Grouping:
    """Returns the assignments sorted by expert, and tiles of `tile_rows` of them.

    Args:
        chosen_NX: chosen experts of each token; >= `experts` for padding.
        experts: experts of the layer.
        tile_rows: rows of a tile.
        interpret: interpret the kernel on any device of JAX, for tests.
    """
    assignments = chosen_NX.size
    block = min(SORTED_BLOCK, pl.next_power_of_2(assignments))
    tiles = max_tiles(assignments, experts, tile_rows)
    in_memory = pl.BlockSpec(memory_space=pl.ANY)
    per_assignment = jax.ShapeDtypeStruct((assignments,), jnp.int32)
    per_tile = jax.ShapeDtypeStruct((tiles,), jnp.int32)

    place_A, token_A, *tile_arrays = pl.pallas_call(
        partial(
            _group_kernel,
            experts=experts,
            choices=chosen_NX.shape[1],
            block=block,
            tile_rows=tile_rows,
        ),
        out_shape=(per_assignment, per_assignment, per_tile, per_tile, per_tile),
        grid=(pl.cdiv(assignments, block),),
        in_specs=[in_memory],
        out_specs=(in_memory,) * 5,
        compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=2),
        interpret=interpret,
        name="group_by_expert",
    )(chosen_NX.reshape(-1).astype(jnp.int32))
    return Grouping(token_A, place_A.reshape(chosen_NX.shape), Tiles(*tile_arrays))


def _group_kernel(
    chosen_ref: Any,
    place_ref: Any,
    token_ref: Any,
    *tile_refs: Any,
    experts: int,
    choices: int,
    block: int,
    tile_rows: int,
) -> None:
    """Places one block of assignments; the first program also cuts the tiles."""
    assignments = chosen_ref.shape[0]
    blocks = pl.cdiv(assignments, block)
    own_block = pl.program_id(0)
    expert_E = jnp.arange(pl.next_power_of_2(experts))
    inside_E = expert_E < experts

    def assignment_of(block_number: Any) -> tuple[Array, Array | None]:
        assignment_C = block_number * block + jnp.arange(block)
        return assignment_C, None if assignments % block == 0 else assignment_C < assignments

    def load_choices(block_number: Any) -> Array:
        """Returns for each assignment of a block a 1 in its expert's column."""
        assignment_C, inside_C = assignment_of(block_number)
        chosen_C = load_block(chosen_ref, (assignment_C,), (inside_C,), other=experts)
        is_chosen_CE = (chosen_C[:, None] == expert_E[None, :]) & inside_E[None, :]
        return is_chosen_CE.astype(jnp.int32)

    def add_block(block_number: Array, counts: tuple[Array, Array]) -> tuple[Array, Array]:
        total_E, before_E = counts
        count_E = jnp.sum(load_choices(block_number), axis=0)
        return total_E + count_E, before_E + jnp.where(block_number < own_block, count_E, 0)

    zero_E = jnp.zeros(expert_E.shape, jnp.int32)
    total_E, before_E = jax.lax.fori_loop(0, blocks, add_block, (zero_E, zero_E))
    begin_E = _sums_before(total_E, expert_E)

    chosen_CE = load_choices(own_block)
    # assignments of the same expert ahead of this one, in all blocks
    ahead_CE = before_E[None, :] + jnp.cumsum(chosen_CE, axis=0) - chosen_CE
    is_real_C = jnp.sum(chosen_CE, axis=1) > 0
    real_place_C = jnp.sum(chosen_CE * (begin_E[None, :] + ahead_CE), axis=1)
    assignment_C, inside_C = assignment_of(own_block)
    padding_ahead_C = assignment_C - jnp.sum(ahead_CE, axis=1)
    place_C = jnp.where(is_real_C, real_place_C, jnp.sum(total_E) + padding_ahead_C)
    plgpu.store(place_ref.at[assignment_C], place_C, mask=inside_C)
    plgpu.store(token_ref.at[place_C], assignment_C // choices, mask=inside_C)

    @pl.when(own_block == 0)
    def _cut_tiles() -> None:
        _store_tiles(total_E, begin_E, expert_E, experts, tile_rows, tile_refs)


def _store_tiles(
    total_E: Array,
    begin_E: Array,
    expert_E: Array,
    experts: int,
    tile_rows: int,
    tile_refs: tuple[Any, ...],
) -> None:
    """Stores expert, begin and end of each tile over sorted assignments."""
    tiles = tile_refs[0].shape[0]
    tile_M = jnp.arange(pl.next_power_of_2(tiles))
    inside_M = None if tiles == tile_M.size else tile_M < tiles
    needed_E = (total_E + tile_rows - 1) // tile_rows
    first_tile_E = _sums_before(needed_E, expert_E)
    last_tile_E = first_tile_E + needed_E

    is_own_ME = (first_tile_E[None, :] <= tile_M[:, None]) & (
        tile_M[:, None] < last_tile_E[None, :]
    )
    own_ME = is_own_ME.astype(jnp.int32)
    is_needed_M = jnp.sum(own_ME, axis=1) > 0
    expert_M = jnp.sum(own_ME * expert_E[None, :], axis=1)
    tile_begin_ME = begin_E[None, :] + (tile_M[:, None] - first_tile_E[None, :]) * tile_rows
    begin_M = jnp.sum(own_ME * tile_begin_ME, axis=1)
    end_M = jnp.minimum(jnp.sum(own_ME * (begin_E + total_E)[None, :], axis=1), begin_M + tile_rows)
    expert_M = jnp.where(is_needed_M, expert_M, experts - 1)
    for ref, value_M in zip(tile_refs, (expert_M, begin_M, end_M), strict=True):
        plgpu.store(ref.at[tile_M], value_M, mask=inside_M)


def _sums_before(count_E: Array, expert_E: Array) -> Array:
    """Returns for each expert the sum of the counts of all experts before it."""
    is_before_EE = expert_E[None, :] < expert_E[:, None]
    return jnp.sum(jnp.where(is_before_EE, count_E[None, :], 0), axis=1)
