"""The platform of CPUs with AVX2 or AVX-512: experts in machine code, attention in plain XLA."""

import logging
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from actors.kernels.cpu import projections
from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.experts import grouped_ffn
from actors.kernels.cpu.layout import (
    PackedExperts,
    PackedMatrix,
    PackedTable,
    pack_experts,
    pack_matrix,
    pack_table,
)
from actors.kernels.cpu.self_check import agrees_with_xla
from actors.kernels.cpu.tiles import InstructionSet
from actors.kernels.quantized import LoadedParams, LoadedWeight, QuantizedWeight
from actors.kernels.xla.layout import DenseExperts, dequantize_param
from actors.kernels.xla.platform import XLA, invariant_cpu_options

_LOG = logging.getLogger(__name__)

PackedParam = Float[Array, "..."] | DenseExperts | PackedExperts | PackedMatrix | PackedTable


def pack_for_device(
    params: LoadedParams,
    dtype: DTypeLike,
    machines: tuple[InstructionSet, ...] | None = None,
    is_usable: Callable[[InstructionSet], bool] = agrees_with_xla,
) -> dict[str, dict[str, PackedParam]]:
    """Returns int8 parameters with experts as `PackedExperts`.

    For tile registers the weights of attention and the embedding table are packed, too. Everything
    else is dense: float32 results keep the bits of XLA's products.

    Takes the parameters over: it deletes the arrays that it replaces one by one.

    Args:
        params: the parameters as loaded.
        dtype: type of activations.
        machines: instruction sets to choose from, the best first; None: those of this CPU. Without
            any, experts become dense, too.
        is_usable: the self-check of an instruction set. It takes a second of processor time, so
            those behind the one that is used are not checked.
    """
    if machines is None:
        machines = instruction_sets()
    machine = _select_instruction_set(params, jnp.dtype(dtype), machines, is_usable)

    packed: dict[str, dict[str, PackedParam]] = {}
    for module, entries in params.items():
        packed[module] = {}
        for name, value in entries.items():
            packed[module][name] = _pack_param(name, value, jnp.dtype(dtype), machine)
    return packed


def _select_instruction_set(
    params: LoadedParams,
    dtype: jnp.dtype,
    machines: tuple[InstructionSet, ...],
    is_usable: Callable[[InstructionSet], bool],
) -> InstructionSet | None:
    """Returns the best instruction set that fits and is usable, or None.

    Products of pairs need bfloat16 activations and groups of an even number of rows.
    """
    pairs_fit = dtype == jnp.bfloat16
    for entries in params.values():
        for value in entries.values():
            if isinstance(value, QuantizedWeight):
                group_rows = value.weight.shape[-2] // value.scales.shape[-2]
                pairs_fit = pairs_fit and group_rows % 2 == 0

    for machine in machines:
        fits = pairs_fit or not machine.pairs
        if not fits:
            continue
        if is_usable(machine):
            return machine
        _LOG.warning(
            "machine code for %s computes other results on this CPU than plain XLA and is not "
            "used; expected equal results: report the CPU's model",
            machine.name,
        )
    return None


def _pack_param(
    name: str, value: LoadedWeight, dtype: jnp.dtype, machine: InstructionSet | None
) -> PackedParam:
    has_tile_registers = machine is not None and machine.has_tile_registers
    if has_tile_registers and name == "embeddings" and isinstance(value, jax.Array):
        return pack_table(value)
    if not isinstance(value, QuantizedWeight):
        return dequantize_param(name, value, dtype)

    packed: PackedParam
    if machine is not None and value.weight.ndim == 3:
        packed = pack_experts(value, machine)
    elif machine is not None and has_tile_registers:
        packed = pack_matrix(value, machine)
    else:
        packed = dequantize_param(name, value, dtype)

    jax.block_until_ready(packed)
    jax.tree.map(lambda array: array.delete(), value)
    return packed


CPU = replace(
    XLA,
    name="cpu",
    kernels=XLA.kernels._replace(
        grouped_ffn=jax.jit(grouped_ffn),
        attention_inputs=jax.jit(projections.attention_inputs),
        project=jax.jit(projections.project),
    ),
    pack_for_device=pack_for_device,
    compiler_options=invariant_cpu_options,
)
