"""The builder of LLVM's text: control flow and constants, compiled and called."""

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest

from actors.kernels.cpu.code import optimized, target_machine
from actors.kernels.cpu.llvm_text import Module, constant, vector


def compile_module(module: Module) -> llvm.ExecutionEngine:
    machine = target_machine()
    engine = llvm.create_mcjit_compiler(optimized(module.text, machine), machine)
    engine.finalize_object()
    return engine


def test_loops_and_branches_compute_a_sum_of_odd_squares() -> None:
    module = Module()
    f = module.function("sum_odd", "i64", {"end": "i64"}, exported=True)
    total = f.alloca("i64", 0)
    with f.loop(0, f["end"]) as i, f.if_then((i % 2).compare("eq", 1)):
        f.store(f.load(total, "i64") + i * i, total)
    f.ret(f.load(total, "i64"))
    engine = compile_module(module)
    sum_odd = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(
        engine.get_function_address("sum_odd")
    )
    assert [sum_odd(end) for end in (0, 1, 2, 6)] == [0, 0, 1, 35]


def test_repeat_ends_at_break_if_and_functions_call_each_other() -> None:
    module = Module()
    halve = module.function("halve", "i64", {"x": "i64"})
    halve.ret(halve["x"] // 2)
    f = module.function("log2", "i64", {"x": "i64"}, exported=True)
    remaining = f.alloca("i64", f["x"])
    count = f.alloca("i64", 0)
    with f.repeat() as end:
        x = f.call(halve, f.load(remaining, "i64"))
        f.break_if(x.compare("eq", 0), end)
        f.store(x, remaining)
        f.store(f.load(count, "i64") + 1, count)
    f.ret(f.load(count, "i64"))
    engine = compile_module(module)
    log2 = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(engine.get_function_address("log2"))
    assert [log2(x) for x in (1, 2, 7, 1024)] == [0, 1, 2, 10]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("minimum", [-2, 1, 3]), ("maximum", [1, 1, 7]), ("ceil_div", [1, 1, 3])],
)
def test_integer_operations_match_python(operation: str, expected: list[int]) -> None:
    module = Module()
    f = module.function("run", "i64", {"x": "i64", "y": "i64"}, exported=True)
    f.ret(getattr(f["x"], operation)(f["y"]))
    engine = compile_module(module)
    run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        engine.get_function_address("run")
    )
    arguments = [(1, 1), (1, 1), (7, 3)] if operation == "ceil_div" else [(-2, 1), (1, 1), (7, 3)]
    assert [run(x, y) for x, y in arguments] == expected


@pytest.mark.parametrize(
    ("number", "type_", "expected"),
    [
        (3, "i64", "3"),
        (0, "ptr", "null"),
        (1.0, "float", "0x3FF0000000000000"),
        (0.1, "float", "0x3FB99999A0000000"),  # the float32 nearest to 0.1, as float64
        (2, vector("i32", 4), "splat (i32 2)"),
    ],
)
def test_constant_of_a_type(number: float, type_: str, expected: str) -> None:
    assert constant(number, type_) == expected
    if type_ == "float":
        bits = np.float64(np.float32(number)).view(np.uint64)
        assert int(expected, 16) == bits
