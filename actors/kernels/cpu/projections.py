"""Products with one packed weight on CPUs: the projections of attention, and the logits.

The weights of attention stay int8 in memory, as those of experts do, so a step reads half the bytes
of bfloat16, and nothing is packed again in every call, as XLA's library does. A row does not depend
on the other rows of its batch.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from actors.kernels.cpu.code import matrix_target
from actors.kernels.cpu.experts import row_words
from actors.kernels.cpu.layout import PackedMatrix, PackedTable
from actors.kernels.cpu.tiles import AMX_BF16, INSTRUCTION_SETS, InstructionSet
from actors.kernels.quantized import MatrixWeight
from actors.kernels.xla import projections


def project(
    x_BTK: Float[Array, "*rows K"], weight: MatrixWeight | PackedMatrix
) -> Float[Array, "*rows N"]:
    """Returns x · weight, summed in float32, in the type of x; see `interface.Project`.

    Weights that are not packed take the XLA path.
    """
    if not isinstance(weight, PackedMatrix):
        return projections.project(x_BTK, weight)
    *rows, width = x_BTK.shape
    experts = weight.experts
    machine = INSTRUCTION_SETS[experts.instructions]
    columns = experts.shape[2]
    target = matrix_target(machine, is_table=False)
    x_ND = x_BTK.reshape(-1, width).astype(jnp.bfloat16)
    result = jax.ShapeDtypeStruct((x_ND.shape[0], columns), jnp.bfloat16)
    y_NK = _call(target, machine, x_ND, (experts.weight, experts.scales), result)
    return y_NK.reshape(*rows, columns).astype(x_BTK.dtype)


def logits(hidden_ND: Float[Array, "N D"], table: PackedTable) -> Float[Array, "N U"]:
    """Returns hidden · table in float32, with this device's rows of the table."""
    target = matrix_target(AMX_BF16, is_table=True)
    result = jax.ShapeDtypeStruct((hidden_ND.shape[0], table.rows.shape[0]), jnp.float32)
    x_ND = hidden_ND.astype(jnp.bfloat16)
    return _call(target, AMX_BF16, x_ND, (table.panels, table.scales), result)


attention_inputs = partial(projections.attention_inputs, project=project)


def _call(
    target: str,
    machine: InstructionSet,
    x_ND: Float[Array, "N D"],
    weight: tuple[Array, Array],
    result: jax.ShapeDtypeStruct,
) -> Float[Array, "N U"]:
    results = [result]
    if machine.has_tile_registers:
        x_words = row_words(x_ND.shape[1] // 2, machine)
        gathered_shape = (x_ND.shape[0] + machine.readable_rows, x_words)
        results.append(jax.ShapeDtypeStruct(gathered_shape, jnp.uint32))
    rows, *_ = jax.ffi.ffi_call(target, results)(x_ND, *weight)
    return rows
