"""The experts of a layer on CPUs: int8 weights packed once, and one call of machine code per layer.

Input: activations, the chosen experts, this device's columns of all experts as `PackedExperts`.
Output: one row per (token, choice). The weights stay int8 in memory and are widened in registers
(`cpu_tiles.py`), so a step reads half the bytes of bfloat16 and no weight is rounded. No token is
dropped and a row does not depend on its batch mates. Knows no gates, no modules and no mesh.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Int8

from actors.kernels.cpu.code import experts_target, instruction_sets
from actors.kernels.cpu.tiles import INSTRUCTION_SETS, InstructionSet
from actors.kernels.interface import Experts
from actors.kernels.quantized import PackedExperts, Params, QuantizedWeight, Weight, densified
from actors.kernels.xla import experts as xla_experts

# Of hidden activations: little enough to be kept from call to call by the allocator, and to stay in
# caches.
SCRATCH_BYTES = 8 << 20
LEAST_ROWS = 256  # of them, so that weights are not read too often
LINE_WORDS = 16  # of a cache line


def grouped_ffn(
    x_ND: Float[Array, "N D"], chosen_NX: Int[Array, "N X"], weights: Experts
) -> tuple[Float[Array, "A D"], Int[Array, "N X"]]:
    """Runs every (token, choice) through its expert.

    Row token·X + choice is its result, zero for a choice that is no expert.

    Args:
        x_ND: activations, bfloat16 or float32.
        chosen_NX: chosen experts of each token; >= E for padding.
        weights: gate, value and output projection, packed by `arrange`. Other weights take the XLA path.
    """
    gate, value, out = weights
    if not (
        isinstance(gate, PackedExperts)
        and isinstance(value, PackedExperts)
        and isinstance(out, PackedExperts)
    ):
        return xla_experts.grouped_ffn(x_ND, chosen_NX, weights)
    machine = INSTRUCTION_SETS[gate.instructions]
    tokens, chosen = chosen_NX.shape
    target = experts_target(machine, bfloat16=x_ND.dtype == jnp.bfloat16)
    results = (
        jax.ShapeDtypeStruct((tokens * chosen, out.shape[2]), x_ND.dtype),
        jax.ShapeDtypeStruct(_scratch(tokens * chosen, gate.weight.shape[1], machine), jnp.uint32),
    )
    x_ND = x_ND if machine.pairs else x_ND.astype(jnp.float32)
    arguments = (part for weight in (gate, value, out) for part in (weight.weight, weight.scales))
    rows_AD, _ = jax.ffi.ffi_call(target, results)(x_ND, chosen_NX.astype(jnp.int32), *arguments)
    return rows_AD, jnp.arange(tokens * chosen, dtype=jnp.int32).reshape(tokens, chosen)


def _scratch(assignments: int, panels: int, machine: InstructionSet) -> tuple[int, int]:
    """Returns rows and 4-byte words of the memory for hidden activations: whole panels, not much more than SCRATCH_BYTES."""
    words = panels * machine.panel // (2 if machine.pairs else 1)
    # an odd number of cache lines: rows of a tile share no places in a cache
    words = (words // LINE_WORDS | 1) * LINE_WORDS
    return min(assignments, max(LEAST_ROWS, SCRATCH_BYTES // (4 * words))), words


def arrange(
    params: Params, dtype: DTypeLike, machines: tuple[InstructionSet, ...] | None = None
) -> dict[str, dict[str, Weight]]:
    """Returns int8 parameters as CPUs compute with them: experts as `PackedExperts`, everything else as `densify` leaves it.

    Takes the parameters over: arrays that it replaces are deleted one by one.

    Args:
        params: the parameters as loaded.
        dtype: type of activations.
        machines: instruction sets to choose from, the best first; None: those of this CPU.
    """
    stacked = [
        w
        for entries in params.values()
        for w in entries.values()
        if isinstance(w, QuantizedWeight) and w.weight.ndim == 3
    ]
    found = (
        tuple(each for each in instruction_sets() if agrees(each)) if machines is None else machines
    )
    machine = _choose(stacked, jnp.dtype(dtype), found)

    def one(name: str, value: Weight) -> Weight:
        if not isinstance(value, QuantizedWeight):
            return densified(name, value, jnp.dtype(dtype))
        packs = machine is not None and value.weight.ndim == 3
        new = (
            pack(value, machine) if packs and machine else densified(name, value, jnp.dtype(dtype))
        )
        jax.block_until_ready(new)
        jax.tree.map(lambda array: array.delete(), value)
        return new

    return {
        module: {name: one(name, value) for name, value in entries.items()}
        for module, entries in params.items()
    }


def _choose(
    weights: list[QuantizedWeight], dtype: jnp.dtype, machines: tuple[InstructionSet, ...]
) -> InstructionSet | None:
    """Returns the best instruction set that fits: products of pairs want bfloat16 and groups of an even number of rows."""
    depths = [w.weight.shape[-2] // w.scales.shape[-2] for w in weights]
    fits = dtype == jnp.bfloat16 and all(depth % 2 == 0 for depth in depths)
    return next((each for each in machines if fits or not each.pairs), None)


@lru_cache
def agrees(machine: InstructionSet) -> bool:
    """Returns whether this CPU computes with an instruction set what plain XLA does: looked at once in a process, on a few rows.

    The code is made for CPUs that nobody may have tried it on. One that got it wrong must not
    answer anybody's prompts.
    """
    x_ND, chosen_NX, given = _check_problem()
    dtype = jnp.bfloat16 if machine.pairs else jnp.float32
    expected_AD, place_NX = map(
        np.asarray, jax.jit(xla_experts.grouped_ffn)(x_ND, chosen_NX, given)
    )
    gate, value, out = (pack(weight, machine) for weight in given)
    rows_AD, own_NX = map(
        np.asarray, jax.jit(grouped_ffn)(x_ND.astype(dtype), chosen_NX, (gate, value, out))
    )
    difference = np.abs(rows_AD[own_NX].astype(np.float32) - expected_AD[place_NX]).max()
    return bool(difference <= (2**-5 if machine.pairs else 1e-4) * np.abs(expected_AD).max())


def _check_problem() -> tuple[
    Array, Array, tuple[QuantizedWeight, QuantizedWeight, QuantizedWeight]
]:
    """Returns activations, chosen experts and weights, of widths that no panel divides.

    Made by NumPy, as each operation of JAX out here would be a program to compile, in every process
    that loads a model.
    """
    tokens, experts, width, ffn = 13, 3, 38, 90
    rng = np.random.default_rng(0)

    def weight(rows: int, columns: int, groups: int) -> QuantizedWeight:
        values = rng.integers(-127, 128, (experts, rows, columns), np.int8)
        scales = np.full((experts, groups, columns), 1 / (64 * rows**0.5), jnp.bfloat16)
        return QuantizedWeight(jnp.asarray(values), jnp.asarray(scales))

    gate, value, out = (
        weight(*shape) for shape in ((width, ffn, 1), (width, ffn, 1), (ffn, width, 5))
    )
    x_ND = rng.standard_normal((tokens, width)).astype(jnp.bfloat16).astype(np.float32)
    chosen_NX = np.stack([np.arange(tokens), np.arange(1, tokens + 1)], 1) % experts
    return jnp.asarray(x_ND), jnp.asarray(chosen_NX.astype(np.int32)), (gate, value, out)


def pack(weight: QuantizedWeight, machine: InstructionSet) -> PackedExperts:
    """Returns the experts' weights packed for an instruction set.

    On a mesh, each device packs its own rows and columns.
    """
    sharding, scales_sharding, shape = (
        weight.weight.sharding,
        weight.scales.sharding,
        weight.weight.shape,
    )
    if isinstance(sharding, NamedSharding) and isinstance(scales_sharding, NamedSharding):
        panels, scales = _packer(sharding.mesh, sharding.spec, scales_sharding.spec, machine)(
            weight
        )
        shape = sharding.shard_shape(shape)
    else:
        panels, scales = jax.jit(_pack, static_argnums=1)(weight, machine)
    return PackedExperts(panels, scales, shape, machine.name)


@lru_cache
def _packer(
    mesh: Mesh, spec: Any, scales_spec: Any, machine: InstructionSet
) -> Callable[[QuantizedWeight], tuple[Array, Array]]:
    """Returns the compiled packing of weights that are split like this."""
    experts, rows, columns = (*spec, None, None, None)[:3]
    groups = (*scales_spec, None, None)[1]
    out_specs = PartitionSpec(experts, columns, rows), PartitionSpec(experts, columns, groups)
    mapped = jax.shard_map(
        partial(_pack, machine=machine),
        mesh=mesh,
        in_specs=(QuantizedWeight(spec, scales_spec),),
        out_specs=out_specs,
    )
    # named explicitly: on one device jit would simplify the sharding to "replicated", and its spec
    # would be lost
    return jax.jit(mapped, out_shardings=tuple(NamedSharding(mesh, each) for each in out_specs))


def _pack(
    weight: QuantizedWeight, machine: InstructionSet
) -> tuple[Int8[Array, "E P S W"], Float[Array, "E P G C"]]:
    """Returns weights and scales in panels of columns, see `cpu_tiles.py`."""
    experts, _, columns = weight.weight.shape
    panels = -(-columns // machine.panel)

    def cut(array: Array) -> Array:
        """[E, R, N] -> [E, panels, R, columns of a panel], zero beyond the last column."""
        padded = jnp.pad(array, ((0, 0), (0, 0), (0, panels * machine.panel - columns)))
        return padded.reshape(experts, -1, panels, machine.panel).swapaxes(1, 2)

    return cut(weight.weight).reshape(experts, panels, -1, machine.step_bytes), cut(
        weight.scales.astype(jnp.float32)
    )
