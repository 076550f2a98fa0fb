"""Checks that this CPU computes with an instruction set what plain XLA computes."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from actors.kernels.cpu.experts import grouped_ffn
from actors.kernels.cpu.layout import PackedExperts, pack_experts
from actors.kernels.cpu.tiles import InstructionSet
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla import experts as xla_experts

# Largest difference, as a share of the largest result.
FLOAT32_TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 2**-5

# Widths that no panel divides.
TOKENS, EXPERTS, WIDTH, FFN, OUT_GROUPS = 13, 3, 38, 90, 5


@lru_cache
def agrees_with_xla(
    machine: InstructionSet,
    pack: Callable[[QuantizedWeight, InstructionSet], PackedExperts] = pack_experts,
) -> bool:
    """Returns whether this CPU computes a few rows with an instruction set as plain XLA does.

    Runs once per process. The code may run on untested CPUs: a CPU that computes wrong results must
    not answer prompts.
    """
    x_ND, chosen_NX, weights = _check_problem()
    expected = jax.jit(xla_experts.grouped_ffn)(x_ND, chosen_NX, weights)

    dtype = jnp.bfloat16 if machine.pairs else jnp.float32
    gate, value, out = weights
    packed = (pack(gate, machine), pack(value, machine), pack(out, machine))
    computed = jax.jit(grouped_ffn)(x_ND.astype(dtype), chosen_NX, packed)

    expected_NXD = _rows_in_order(*expected)
    difference = np.abs(_rows_in_order(*computed) - expected_NXD).max()
    tolerance = BFLOAT16_TOLERANCE if machine.pairs else FLOAT32_TOLERANCE
    return bool(difference <= tolerance * np.abs(expected_NXD).max())


def _rows_in_order(rows_AD: Array, place_NX: Array) -> np.ndarray:
    """Returns the rows of every (token, choice), [N, X, D], in float32."""
    return np.asarray(rows_AD)[np.asarray(place_NX)].astype(np.float32)


def _check_problem() -> tuple[
    Array, Array, tuple[QuantizedWeight, QuantizedWeight, QuantizedWeight]
]:
    """Returns activations, chosen experts and weights.

    Made by NumPy, as each operation of JAX here would be a program to compile, in every process
    that loads a model.
    """
    rng = np.random.default_rng(0)

    def random_weight(rows: int, columns: int, groups: int) -> QuantizedWeight:
        values = rng.integers(-127, 128, (EXPERTS, rows, columns), np.int8)
        scales = np.full((EXPERTS, groups, columns), 1 / (64 * rows**0.5), jnp.bfloat16)
        return QuantizedWeight(jnp.asarray(values), jnp.asarray(scales))

    gate = random_weight(WIDTH, FFN, 1)
    value = random_weight(WIDTH, FFN, 1)
    out = random_weight(FFN, WIDTH, OUT_GROUPS)
    x_ND = rng.standard_normal((TOKENS, WIDTH)).astype(jnp.bfloat16).astype(np.float32)
    first_choice = np.arange(TOKENS) % EXPERTS
    second_choice = np.arange(1, TOKENS + 1) % EXPERTS
    chosen_NX = np.stack([first_choice, second_choice], 1).astype(np.int32)
    return jnp.asarray(x_ND), jnp.asarray(chosen_NX), (gate, value, out)
