"""Arithmetic of the CPU's kernels, number by number: gelu and rounding to bfloat16."""

import ctypes

import jax.numpy as jnp
import llvmlite.binding as llvm
import numpy as np
import pytest

from actors.kernels.cpu.code import instruction_sets, optimized, target_machine
from actors.kernels.cpu.llvm_text import Module
from actors.kernels.cpu.tiles import InstructionSet, bfloat16_bits, gelu

every_machine = pytest.mark.parametrize(
    "machine", instruction_sets(), ids=lambda machine: machine.name
)


def run_elementwise(machine: InstructionSet, operation: str, x: np.ndarray) -> np.ndarray:
    """Returns `gelu` or `bfloat16_bits` of float32 numbers, computed by compiled code."""
    module = Module()
    parameters = {"source": "ptr", "target": "ptr", "count": "i64"}
    f = module.function("elementwise", "void", parameters, exported=True)
    with f.loop(0, f["count"], machine.lanes) as i:
        numbers = f.load(f.gep(f["source"], i, "float"), machine.floats, 4)
        if operation == "gelu":
            result = gelu(f, machine, numbers)
        else:
            result = bfloat16_bits(machine, numbers)
        f.store(result, f.gep(f["target"], i, "float"), 4)
    f.ret()

    compiler = target_machine()
    engine = llvm.create_mcjit_compiler(optimized(module.text, compiler), compiler)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        engine.get_function_address("elementwise")
    )
    padded = np.zeros(-(-len(x) // machine.lanes) * machine.lanes, np.float32)
    padded[: len(x)] = x
    target = np.empty_like(padded)
    function(padded.ctypes.data, target.ctypes.data, len(padded))
    return target[: len(x)]


@every_machine
def test_gelu_matches_the_tanh_approximation(machine: InstructionSet) -> None:
    x = np.concatenate([np.linspace(-12, 12, 2001), [0, -0.0, 1e-30, 30, -30, 1e4, -1e4]])
    x = x.astype(np.float32)
    numbers = x.astype(np.float64)
    inner = np.sqrt(2 / np.pi) * (numbers + 0.044715 * numbers**3)
    expected = 0.5 * numbers * (1 + np.tanh(inner))
    np.testing.assert_allclose(run_elementwise(machine, "gelu", x), expected, rtol=2e-6, atol=1e-6)


@every_machine
def test_bfloat16_bits_round_to_nearest_ties_to_even(machine: InstructionSet) -> None:
    upper = np.array([0x3F80, 0x3F81, 0xBF80, 0xBF81, 0x0001, 0x7F7F], np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (upper[:, None] | lower[None, :]).reshape(-1).view(np.float32)
    bits = run_elementwise(machine, "bfloat16_bits", x).view(np.uint32)
    expected = x.astype(jnp.bfloat16).view(np.uint16).astype(np.uint32) << 16
    np.testing.assert_array_equal(bits, expected)


@every_machine
def test_bfloat16_bits_keep_nan_and_infinity(machine: InstructionSet) -> None:
    # a NaN whose payload is in the lower half would round to infinity
    nan_bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    x = np.concatenate([nan_bits.view(np.float32), np.float32([np.inf, -np.inf])])
    rounded = run_elementwise(machine, "bfloat16_bits", x)
    assert np.isnan(rounded[:3]).all()
    np.testing.assert_array_equal(rounded[3:], [np.inf, -np.inf])
