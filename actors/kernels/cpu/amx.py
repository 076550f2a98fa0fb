"""Products of rows with packed int8 weights in the tile registers of AMX-BF16.

A tile register holds 16 rows of 64 bytes: of x, 32 bfloat16 numbers of 16 rows; of the weights, 16
pairs of rows of 16 columns; of the sums, 16 x 16 float32 numbers. One instruction adds the product
of the first two to the third: 16,384 operations, as many as 256 instructions of AVX512-BF16.

            panel 0             panel 1         int8, both widened to pairs of bfloat16 once:
         c0       c1         c2       c3        `widened`, for each 16 steps of k
      ┌────────┬────────┐ ┌────────┬────────┐
    k │  1 KB  │  1 KB  │ │  1 KB  │  1 KB  │   and read again by every further tile of rows
      └────────┴────────┘ └────────┴────────┘
    up to 16 rows:  one register of x, four of sums (c0 … c3)
    up to 32 rows:  two registers of x, four of sums (c0, c1; then c2, c3)

The instruction sums even and odd k of 16 steps apart, adds both, and adds that to the sum so far. A
row has the same bits in either case and in any place, but others than with AVX512-BF16.

Linux grants the registers to a process that requests them; see `is_granted`.
"""

import ctypes
import platform
import sys
from functools import lru_cache

from actors.kernels.cpu.llvm_text import Function, Module, Value
from actors.kernels.cpu.tiles import (
    CACHE_LINE_BYTES,
    PREFETCHED,
    PRODUCTS_PARAMETERS,
    REGISTERS,
    InstructionSet,
    request_line,
    widen,
)

REGISTER_ROWS = 16
REGISTER_BYTES = REGISTER_ROWS * CACHE_LINE_BYTES
STEPS = 16  # of k, pairs, in a register
COLUMN_BLOCKS = 2 * REGISTERS  # of two panels: registers of sums of one row of registers
STEPS_BYTES = COLUMN_BLOCKS * REGISTER_BYTES  # of both panels, widened, in STEPS steps

# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), asm/prctl.h
ARCH_PRCTL = 158
REQUEST_PERMISSION = 0x1023
TILE_DATA = 18

# of ldtilecfg: palette 1; bytes of a row, of 8 registers, and rows of each
CONFIGURATION = (
    1,
    0,
    0x0040_0040_0040_0040,
    0x0040_0040_0040_0040,
    0,
    0,
    0x1010_1010_1010_1010,
    0,
)

ROWS_PARAMETERS = {
    "x": "ptr",
    "row_bytes": "i64",
    "panel_0": "ptr",
    "panel_1": "ptr",
    "steps": "i64",
    "widened": "ptr",
    "is_widened": "i64",
    "kept": "i64",
    "totals": "ptr",
}


@lru_cache
def is_granted() -> bool:
    """Returns whether Linux lets this process use the tile registers; requests it once.

    It refuses on kernels before 5.16, and where a thread has a signal stack too small for them.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    request = (ctypes.c_long(REQUEST_PERMISSION), ctypes.c_long(TILE_DATA))
    return bool(libc.syscall(ctypes.c_long(ARCH_PRCTL), *request) == 0)


def begin_task(f: Function, steps: Value, groups: Value) -> Value:
    """Configures the registers; returns memory for `groups` x `steps` steps of two panels."""
    configuration = f.alloca("i64", count=len(CONFIGURATION))
    for index, word in enumerate(CONFIGURATION):
        f.store(f.constant(word), f.gep(configuration, index, "i64"), 8)
    f.call_external("llvm.x86.ldtilecfg", "void", configuration)
    group_bytes = steps.ceil_div(STEPS) * STEPS_BYTES
    return f.call_external("aligned_alloc", "ptr", f.constant(4096), groups * group_bytes)


def end_task(f: Function, widened: Value) -> None:
    """Frees the memory and returns the registers to their initial state."""
    f.call_external("free", "void", widened)
    f.call_external("llvm.x86.tilerelease", "void")


def write_products(module: Module, machine: InstructionSet) -> Function:
    """Writes the function `products`, see `tiles.write_products`.

    Rows of x lie one after the other: only the first of `ids` is read. They are followed by memory
    that may be read, of `rows` rows and of a cache line; that line is zero.
    """
    f = module.function("products", "void", PRODUCTS_PARAMETERS)
    widen_steps = _write_widen(module, machine)
    few_rows = _write_rows(module, machine, widen_steps, rows=1, columns=COLUMN_BLOCKS)
    more_rows = _write_rows(module, machine, widen_steps, rows=2, columns=REGISTERS)

    width = COLUMN_BLOCKS * machine.lanes
    totals = f.alloca("float", count=machine.rows * width)
    with f.loop(0, f["count"] * width, machine.lanes) as i:
        f.store(f.constant(0.0, machine.floats), f.gep(f["sums"], i, "float"), 4)

    row_bytes = f["row_words"] * 4
    row = f.load(f["ids"], "i32", 4).cast("sext", "i64")
    x = f.gep(f["x"], row * row_bytes)
    steps = f["steps"]
    group_bytes = steps.ceil_div(STEPS) * STEPS_BYTES
    with f.loop(0, f["groups"]) as group:
        x_group = f.gep(x, group * steps * 4)
        panels = [f.gep(f[f"panel_{p}"], group * steps * machine.step_bytes) for p in (0, 1)]
        widened = f.gep(f["widened"], group * group_bytes)
        is_few = f["count"].compare("sle", REGISTER_ROWS)
        with f.if_then(is_few):
            kept = (f["is_widened"] * -1) | STEPS_BYTES
            f.call(
                few_rows,
                x_group,
                row_bytes,
                *panels,
                steps,
                widened,
                f["is_widened"],
                kept,
                totals,
            )
        with f.if_then(is_few.compare("eq", 0)):
            for p, is_widened in enumerate((f["is_widened"], f.constant(1))):
                panel_widened = f.gep(widened, p * REGISTERS * REGISTER_BYTES)
                panel_totals = f.gep(totals, p * machine.panel, "float")
                f.call(
                    more_rows,
                    x_group,
                    row_bytes,
                    *panels,
                    steps,
                    panel_widened,
                    is_widened,
                    f.constant(-1),
                    panel_totals,
                )

        scales = []
        for p in (0, 1):
            panel_scales = f.gep(f[f"scales_{p}"], group * machine.panel, "float")
            for register in range(REGISTERS):
                address = f.gep(panel_scales, register * machine.lanes, "float")
                scales.append(f.load(address, machine.floats, 4))
        with f.loop(0, f["count"]) as i:
            for c, scale in enumerate(scales):
                offset = i * width + c * machine.lanes
                total = f.load(f.gep(totals, offset, "float"), machine.floats, 4)
                out = f.gep(f["sums"], offset, "float")
                f.store(f.fma(total, scale, f.load(out, machine.floats, 4)), out, 4)
    f.ret()
    return f


def _write_rows(
    module: Module, machine: InstructionSet, widen_steps: Function, *, rows: int, columns: int
) -> Function:
    """Writes totals[r, c] = Σ over k of x[r, k] · w[k, c], for `rows` x `columns` registers.

    Weights of both panels are widened on the way, one iteration ahead, unless they are already.
    """
    f = module.function(f"tile_registers_{rows}x{columns}", "void", ROWS_PARAMETERS)
    sums = range(rows * columns)
    x_registers = range(len(sums), len(sums) + rows)
    weight_registers = range(len(sums) + rows, 8)
    for total in sums:
        f.call_external("llvm.x86.tilezero", "void", f.constant(total, "i8"))

    def widen_ahead(first: Value) -> None:
        is_needed = f["is_widened"].compare("eq", 0) & first.compare("slt", f["steps"])
        with f.if_then(is_needed):
            panels = [f.gep(f[f"panel_{p}"], first * machine.step_bytes) for p in (0, 1)]
            target = f.gep(f["widened"], first * (STEPS_BYTES // STEPS) & f["kept"])
            f.call(widen_steps, *panels, f["steps"] - first, target)

    widen_ahead(f.constant(0))
    with f.loop(0, f["steps"], STEPS) as k:
        widen_ahead(k + STEPS)
        for r, register in enumerate(x_registers):
            x = f.gep(f["x"], f["row_bytes"] * (r * REGISTER_ROWS) + k * 4)
            _load_register(f, register, x, f["row_bytes"])
        weights = f.gep(f["widened"], k * (STEPS_BYTES // STEPS) & f["kept"])
        for c in range(columns):
            weight = weight_registers[c % len(weight_registers)]
            address = f.gep(weights, c * REGISTER_BYTES)
            _load_register(f, weight, address, f.constant(CACHE_LINE_BYTES))
            for r, x_register in enumerate(x_registers):
                numbers = (r * columns + c, x_register, weight)
                operands = [f.constant(number, "i8") for number in numbers]
                f.call_external("llvm.x86.tdpbf16ps", "void", *operands)

    totals_row_bytes = f.constant(COLUMN_BLOCKS * CACHE_LINE_BYTES)
    for total in sums:
        r, c = divmod(total, columns)
        offset = r * REGISTER_ROWS * COLUMN_BLOCKS * CACHE_LINE_BYTES + c * CACHE_LINE_BYTES
        address = f.gep(f["totals"], offset)
        number = f.constant(total, "i8")
        f.call_external("llvm.x86.tilestored64", "void", number, address, totals_row_bytes)
    f.ret()
    return f


def _write_widen(module: Module, machine: InstructionSet) -> Function:
    """Writes widen_steps(panels, steps, target): up to STEPS steps, the others zero."""
    parameters = {"panel_0": "ptr", "panel_1": "ptr", "steps": "i64", "target": "ptr"}
    f = module.function("widen_steps", "void", parameters)
    end = f["steps"].minimum(STEPS)

    with f.loop(0, end) as step:
        target = f.gep(f["target"], step * CACHE_LINE_BYTES)
        for p in (0, 1):
            panel_row = f.gep(f[f"panel_{p}"], step * machine.step_bytes)
            request_line(f, f.gep(panel_row, PREFETCHED))
            for register in range(REGISTERS):
                weights = widen(f, machine, panel_row, register)
                column_block = p * REGISTERS + register
                f.store(weights, f.gep(target, column_block * REGISTER_BYTES), 64)

    with f.loop(end, STEPS) as step:
        target = f.gep(f["target"], step * CACHE_LINE_BYTES)
        for column_block in range(COLUMN_BLOCKS):
            zero = f.constant(0, machine.ints)
            f.store(zero, f.gep(target, column_block * REGISTER_BYTES), 64)
    f.ret()
    return f


def _load_register(f: Function, register: int, address: Value, row_bytes: Value) -> None:
    """Loads 16 rows of 64 bytes, `row_bytes` apart."""
    number = f.constant(register, "i8")
    f.call_external("llvm.x86.tileloadd64", "void", number, address, row_bytes)
