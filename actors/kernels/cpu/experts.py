"""The experts of a layer on CPUs: int8 weights packed once, one call of machine code per layer.

The weights stay int8 in memory and are widened in registers (`tiles.py`), so a step reads half the
bytes of bfloat16 and no weight is rounded. No token is dropped and a row does not depend on the
other rows of its batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from actors.kernels.cpu.code import experts_target
from actors.kernels.cpu.layout import PackedExperts
from actors.kernels.cpu.tiles import INSTRUCTION_SETS, InstructionSet
from actors.kernels.interface import Experts
from actors.kernels.xla import experts as xla_experts

# Bytes of hidden activations: little enough to be kept from call to call by the allocator, and to
# stay in caches.
SCRATCH_BYTES = 8 << 20
MIN_SCRATCH_ROWS = 256  # so that weights are not read too often
CACHE_LINE_WORDS = 16


def grouped_ffn(
    x_ND: Float[Array, "N D"], chosen_NX: Int[Array, "N X"], weights: Experts
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs every (token, choice) through its expert.

    Args:
        x_ND: activations, bfloat16 or float32.
        chosen_NX: chosen experts of each token; >= E for padding.
        weights: gate, value and output projection as `PackedExperts`. Other weights take the XLA
            path.

    Returns:
        The rows, [token·X + choice, D], zero for a choice that is no expert; and their numbers.
    """
    gate, value, out = weights
    if (
        isinstance(gate, PackedExperts)
        and isinstance(value, PackedExperts)
        and isinstance(out, PackedExperts)
    ):
        machine = INSTRUCTION_SETS[gate.instructions]
        assignments = chosen_NX.size
        rows = max_scratch_rows(gate.weight.shape[1], machine)
        return packed_grouped_ffn(x_ND, chosen_NX, (gate, value, out), min(assignments, rows))
    return xla_experts.grouped_ffn(x_ND, chosen_NX, weights)


def packed_grouped_ffn(
    x_ND: Float[Array, "N D"],
    chosen_NX: Int[Array, "N X"],
    weights: tuple[PackedExperts, PackedExperts, PackedExperts],
    scratch_rows: int,
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs `grouped_ffn` with memory for the hidden activations of `scratch_rows` assignments."""
    gate, value, out = weights
    machine = INSTRUCTION_SETS[gate.instructions]
    tokens, chosen = chosen_NX.shape
    assignments = tokens * chosen
    target = experts_target(machine, bfloat16=x_ND.dtype == jnp.bfloat16)
    hidden_words = _scratch_row_words(gate.weight.shape[1], machine)
    scratch_shapes = [(scratch_rows, hidden_words)]
    if machine.has_tile_registers:
        x_words = row_words(gate.weight.shape[2], machine)
        rows_read = scratch_rows + machine.rows
        scratch_shapes = [(rows_read, hidden_words), (rows_read, x_words)]
    scratch = [jax.ShapeDtypeStruct(shape, jnp.uint32) for shape in scratch_shapes]
    results = [jax.ShapeDtypeStruct((assignments, out.shape[2]), x_ND.dtype), *scratch]

    x_ND = x_ND if machine.pairs else x_ND.astype(jnp.float32)
    rows_AD, *_ = jax.ffi.ffi_call(target, results)(
        x_ND,
        chosen_NX.astype(jnp.int32),
        gate.weight,
        gate.scales,
        value.weight,
        value.scales,
        out.weight,
        out.scales,
    )
    place_NX = jnp.arange(assignments, dtype=jnp.int32).reshape(tokens, chosen)
    return rows_AD, place_NX


def max_scratch_rows(panels: int, machine: InstructionSet) -> int:
    """Returns how many assignments are computed at a time: hidden rows of about SCRATCH_BYTES."""
    row_bytes = 4 * _scratch_row_words(panels, machine)
    return max(MIN_SCRATCH_ROWS, SCRATCH_BYTES // row_bytes)


def _scratch_row_words(panels: int, machine: InstructionSet) -> int:
    """Returns the 4-byte words of the hidden activations of one assignment: all panels."""
    columns = panels * machine.panel
    words = columns // 2 if machine.pairs else columns
    return row_words(words, machine)


def row_words(words: int, machine: InstructionSet) -> int:
    """Returns the 4-byte words from one row of `words` to the next."""
    cache_lines = -(-words // CACHE_LINE_WORDS)
    if machine.has_tile_registers:
        cache_lines += 1  # of zeros, see amx.py
    # an odd number of cache lines: rows of a tile share no places in a cache
    return (cache_lines | 1) * CACHE_LINE_WORDS
