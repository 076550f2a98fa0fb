"""Weights as the CPU's kernels read them: panels of columns, see `tiles.py` and `amx.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int8

from actors.kernels.cpu.amx import COLUMN_BLOCKS, REGISTER_ROWS, STEPS
from actors.kernels.cpu.tiles import InstructionSet
from actors.kernels.quantized import MatrixWeight, QuantizedWeight
from actors.protocol.errors import ModelError


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("weight", "scales"),
    meta_fields=("shape", "instructions"),
)
@dataclass(frozen=True)
class PackedExperts:
    """The experts' int8 weights in the order in which the CPU's kernel reads them."""

    # Any: trees of shapes and of PartitionSpecs take this form, too. int8 [E, P, S, W]: P panels of
    # columns, S steps of the contracted axis, W bytes of a panel in a step
    weight: Any
    scales: Any  # float32 [E, P, G, C], for the C columns of a panel
    shape: tuple[int, ...]  # of the stacked weight it stands for on one device, (E, K, N)
    instructions: str  # the instruction set it is packed for

    def expert(self, index: int) -> MatrixWeight:
        """Raises ModelError: plain XLA cannot read packed weights."""
        raise ModelError(
            f"expert {index}: the weights are packed for {self.instructions}, which only "
            "actors/kernels/cpu/experts.py reads; expected weights as loaded or dequantized"
        )


class PackedMatrix(NamedTuple):
    """One int8 weight, packed as that of a single expert."""

    experts: PackedExperts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight it stands for on one device, (K, N)."""
        return self.experts.shape[1:]


class PackedTable(NamedTuple):
    """The embedding table twice: rows to read tokens, and panels of tile registers for logits."""

    rows: Any  # bfloat16 [U, D]
    # bfloat16 [1, P, S, W], an even number of panels of U, S steps of D, a multiple of 16
    panels: Any
    scales: Any  # float32 [1, P, 1, C], ones

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the table on all devices, (V, D)."""
        return tuple(self.rows.shape)


def pack_experts(weight: QuantizedWeight, machine: InstructionSet) -> PackedExperts:
    """Returns the experts' weights packed for an instruction set.

    On a mesh, each device packs its own rows and columns.
    """
    shape = weight.weight.shape
    sharding = weight.weight.sharding
    scales_sharding = weight.scales.sharding

    if isinstance(sharding, NamedSharding) and isinstance(scales_sharding, NamedSharding):
        pack = _mesh_packer(
            sharding.mesh, sharding.spec, scales_sharding.spec, weight.weight.ndim, machine
        )
        panels, scales = pack(weight)
        shape = sharding.shard_shape(shape)
    else:
        panels, scales = jax.jit(_to_panels, static_argnums=1)(weight, machine)

    experts = (1,) * (3 - len(shape))
    return PackedExperts(panels, scales, (*experts, *shape), machine.name)


def pack_matrix(weight: QuantizedWeight, machine: InstructionSet) -> PackedMatrix:
    """Returns one weight packed for an instruction set; see `pack_experts`."""
    return PackedMatrix(pack_experts(weight, machine))


@lru_cache
def _mesh_packer(
    mesh: Mesh, spec: Any, scales_spec: Any, ndim: int, machine: InstructionSet
) -> Callable[[QuantizedWeight], tuple[Array, Array]]:
    """Returns the compiled packing of weights with these partition specs."""
    stack = [None] * (3 - ndim)
    experts, rows, columns = (*stack, *spec, None, None, None)[:3]
    groups = (*stack, *scales_spec, None, None)[1]
    panels_spec = PartitionSpec(experts, columns, rows)
    packed_scales_spec = PartitionSpec(experts, columns, groups)

    mapped = jax.shard_map(
        partial(_to_panels, machine=machine),
        mesh=mesh,
        in_specs=(QuantizedWeight(spec, scales_spec),),
        out_specs=(panels_spec, packed_scales_spec),
    )
    # named explicitly: on one device jit would simplify the sharding to "replicated", and its spec
    # would be lost
    out_shardings = (NamedSharding(mesh, panels_spec), NamedSharding(mesh, packed_scales_spec))
    return jax.jit(mapped, out_shardings=out_shardings)


def pack_table(table_UD: Float[Array, "U D"]) -> PackedTable:
    """Returns the embedding table in bfloat16 with its panels as tile registers read them.

    On a mesh, each device packs its own rows.
    """
    sharding = table_UD.sharding
    if isinstance(sharding, NamedSharding):
        return _mesh_table_packer(sharding.mesh, sharding.spec)(table_UD)
    return jax.jit(_to_table)(table_UD)


@lru_cache
def _mesh_table_packer(mesh: Mesh, spec: Any) -> Callable[[Array], PackedTable]:
    """Returns the compiled packing of a table with this partition spec."""
    panels_spec = PartitionSpec(None, (*spec, None)[0])
    specs = PackedTable(spec, panels_spec, panels_spec)
    mapped = jax.shard_map(_to_table, mesh=mesh, in_specs=(spec,), out_specs=specs)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    packed: Callable[[Array], PackedTable] = jax.jit(mapped, out_shardings=shardings)
    return packed


def _to_table(table_UD: Float[Array, "U D"]) -> PackedTable:
    """Returns a table packed, zero beyond its last row and column."""
    rows = table_UD.astype(jnp.bfloat16)
    columns, width = table_UD.shape
    block = REGISTER_ROWS * COLUMN_BLOCKS  # columns of logits, of two panels
    missing_columns = -columns % block
    missing_width = -width % (2 * STEPS)
    padded = jnp.pad(rows, ((0, missing_columns), (0, missing_width)))

    # [two panels, column block, column, STEPS of k, step, even and odd k]
    split = padded.reshape(
        -1, COLUMN_BLOCKS, REGISTER_ROWS, padded.shape[1] // (2 * STEPS), STEPS, 2
    )
    registers = split.transpose(0, 3, 1, 4, 2, 5)
    panels = padded.shape[0] // block * 2
    panel_columns = block // 2
    packed = registers.reshape(1, panels, padded.shape[1] // 2, 2 * panel_columns)
    scales = jnp.ones_like(packed[:, :, :1, :panel_columns], jnp.float32)
    return PackedTable(rows, packed, scales)


def _to_panels(
    weight: QuantizedWeight, machine: InstructionSet
) -> tuple[Int8[Array, "E P S W"], Float[Array, "E P G C"]]:
    """Returns weights and scales in panels of columns, zero beyond the last column."""
    *_, rows, columns = weight.weight.shape
    weights = weight.weight.reshape(-1, rows, columns)
    all_scales = weight.scales.reshape(weights.shape[0], -1, columns).astype(jnp.float32)
    experts = weights.shape[0]
    panels = -(-columns // machine.panel)
    missing_columns = panels * machine.panel - columns

    def split_columns(array: Array) -> Array:
        """[E, R, N] -> [E, panels, R, columns of a panel]."""
        padded = jnp.pad(array, ((0, 0), (0, 0), (0, missing_columns)))
        return padded.reshape(experts, -1, panels, machine.panel).swapaxes(1, 2)

    weight_panels = split_columns(weights)
    packed = weight_panels.reshape(experts, panels, -1, machine.step_bytes)
    return packed, split_columns(all_scales)
