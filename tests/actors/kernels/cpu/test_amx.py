"""Products in AMX's tile registers, bit by bit, of full and of partly filled registers."""

import ctypes

import jax.numpy as jnp
import llvmlite.binding as llvm
import numpy as np
import pytest

from actors.kernels.cpu import amx
from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.llvm_text import Module
from actors.kernels.cpu.tiles import AMX_BF16
from tests.actors.kernels.cpu.test_llvm_text import compile_module

GROUPS, GROUP_STEPS = 2, 21  # a register of 16 steps, and a part of one
K = 2 * GROUPS * GROUP_STEPS
MAX_ROWS = AMX_BF16.rows
ROW_WORDS = 80
WIDTH = 2 * AMX_BF16.panel
PARAMETERS = {
    "ids": "ptr",
    "count": "i64",
    "x": "ptr",
    "panels": "ptr",
    "scales": "ptr",
    "sums": "ptr",
    "repeats": "i64",
}


@pytest.fixture(scope="module")
def engine() -> llvm.ExecutionEngine:
    """Returns compiled code that computes `products`; the second time with widened panels."""
    if AMX_BF16 not in instruction_sets():
        pytest.skip("this process has no tile registers")
    module = Module()
    products = amx.write_products(module, AMX_BF16)
    f = module.function("run", "void", PARAMETERS, exported=True)
    steps = f.constant(GROUP_STEPS)
    groups = f.constant(GROUPS)
    widened = amx.begin_task(f, steps, groups)
    panel_1 = f.gep(f["panels"], GROUPS * GROUP_STEPS * AMX_BF16.step_bytes)
    scales_1 = f.gep(f["scales"], GROUPS * AMX_BF16.panel, "float")
    weights = (f["panels"], f["scales"], panel_1, scales_1)
    x_words = f.constant(ROW_WORDS)
    with f.loop(0, f["repeats"]) as is_widened:
        rows = (f["ids"], f["count"], f["x"], x_words)
        f.call(products, *rows, *weights, groups, steps, f["sums"], widened, is_widened)
    amx.end_task(f, widened)
    f.ret()
    return compile_module(module)


def in_order_of_registers(x_K: np.ndarray, w_KN: np.ndarray, scales_GN: np.ndarray) -> np.ndarray:
    """Returns a row's sums in float32, added as Intel's manual specifies for TDPBF16PS."""
    sums_N = np.zeros(w_KN.shape[1], np.float32)
    for group in range(GROUPS):
        begin = group * 2 * GROUP_STEPS
        end = begin + 2 * GROUP_STEPS
        total_N = np.zeros_like(sums_N)
        for register in range(begin, end, 32):
            even_N = np.zeros_like(sums_N)
            odd_N = np.zeros_like(sums_N)
            for k in range(register, min(register + 32, end), 2):
                even_N += x_K[k] * w_KN[k]
                odd_N += x_K[k + 1] * w_KN[k + 1]
            total_N += even_N + odd_N
        exact_N = total_N.astype(np.float64) * scales_GN[group]
        sums_N = (exact_N + sums_N).astype(np.float32)
    return sums_N


@pytest.mark.parametrize("repeats", [1, 2], ids=["widened on the way", "widened before"])
@pytest.mark.parametrize("count", [1, 16, 17, MAX_ROWS])
def test_products_have_the_bits_of_the_manual(
    count: int, repeats: int, engine: llvm.ExecutionEngine
) -> None:
    rng = np.random.default_rng(0)
    x_RK = rng.standard_normal((MAX_ROWS, K)).astype(jnp.bfloat16)
    w_KN = rng.integers(-127, 128, (K, WIDTH), np.int8)
    scales_GN = 2.0 ** rng.integers(-8, 0, (GROUPS, WIDTH))  # of which a product is exact
    x = np.zeros((2 * MAX_ROWS, 2 * ROW_WORDS), jnp.bfloat16)
    x[MAX_ROWS:] = np.nan  # rows beyond the last are read, and reach no other row
    x[:MAX_ROWS, :K] = x_RK
    first = MAX_ROWS - count
    ids = np.array([first], np.int32)
    panels = np.ascontiguousarray(w_KN.reshape(K, 2, -1).swapaxes(0, 1))
    scales = np.ascontiguousarray(scales_GN.reshape(GROUPS, 2, -1).swapaxes(0, 1), np.float32)
    sums = np.full((MAX_ROWS, WIDTH), np.nan, np.float32)

    pointers = [array.ctypes.data for array in (x, panels, scales, sums)]
    run = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64
    )(engine.get_function_address("run"))
    run(ids.ctypes.data, count, *pointers, repeats)

    weights_KN = w_KN.astype(np.float32)
    for row in range(count):
        x_K = x_RK[first + row].astype(np.float32)
        expected = in_order_of_registers(x_K, weights_KN, scales_GN)
        np.testing.assert_array_equal(sums[row], expected)


def test_registers_are_the_first_choice_where_they_are_granted() -> None:
    if AMX_BF16 in instruction_sets():
        assert amx.is_granted()
        assert instruction_sets()[0] is AMX_BF16
    elif instruction_sets():
        features = llvm.get_host_cpu_features()
        assert not features.get("amx-bf16") or not amx.is_granted()
