"""Int8 weights of experts as the CPU's kernel reads them: panels of columns, see `tiles.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int8

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


def pack_experts(weight: QuantizedWeight, machine: InstructionSet) -> PackedExperts:
    """Returns the experts' weights packed for an instruction set.

    On a mesh, each device packs its own rows and columns.
    """
    shape = weight.weight.shape
    sharding = weight.weight.sharding
    scales_sharding = weight.scales.sharding

    if isinstance(sharding, NamedSharding) and isinstance(scales_sharding, NamedSharding):
        pack = _mesh_packer(sharding.mesh, sharding.spec, scales_sharding.spec, machine)
        panels, scales = pack(weight)
        shape = sharding.shard_shape(shape)
    else:
        panels, scales = jax.jit(_to_panels, static_argnums=1)(weight, machine)

    return PackedExperts(panels, scales, shape, machine.name)


@lru_cache
def _mesh_packer(
    mesh: Mesh, spec: Any, scales_spec: Any, machine: InstructionSet
) -> Callable[[QuantizedWeight], tuple[Array, Array]]:
    """Returns the compiled packing of weights with these partition specs."""
    experts, rows, columns = (*spec, None, None, None)[:3]
    groups = (*scales_spec, None, None)[1]
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


def _to_panels(
    weight: QuantizedWeight, machine: InstructionSet
) -> tuple[Int8[Array, "E P S W"], Float[Array, "E P G C"]]:
    """Returns weights and scales in panels of columns, zero beyond the last column."""
    experts, _, columns = weight.weight.shape
    panels = -(-columns // machine.panel)
    missing_columns = panels * machine.panel - columns

    def split_columns(array: Array) -> Array:
        """[E, R, N] -> [E, panels, R, columns of a panel]."""
        padded = jnp.pad(array, ((0, 0), (0, 0), (0, missing_columns)))
        return padded.reshape(experts, -1, panels, machine.panel).swapaxes(1, 2)

    weight_panels = split_columns(weight.weight)
    packed = weight_panels.reshape(experts, panels, -1, machine.step_bytes)
    return packed, split_columns(weight.scales.astype(jnp.float32))
