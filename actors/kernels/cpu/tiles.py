"""The arithmetic of CPU kernels: products of a few rows with packed int8 weights, gelu, rounding.

A weight [K, N] is packed once into panels of as many columns as two registers hold, each panel row
after row, so that a product reads memory from front to back and whole registers at a time:

               N columns                                     panel 0     panel 1     …
            ┌───────┬───────┬── ─                          ┌─────────┬─────────┬── ─
     K rows │ k=0   │ k=0   │          in memory:          │k=0 … K-1│k=0 … K-1│
            │ k=1   │ k=1   │                              └─────────┴─────────┴── ─
            └───────┴───────┴── ─      the last panel is filled up with zeros

A tile is the product of up to `rows` rows and a panel, or two panels when there are so few rows
that half of the registers would be idle. Its sums stay in registers while k runs; each weight is
read once, widened in a register and used for all rows of the tile:

      x[0, k] ── splat ──┐
      x[1, k] ── splat ──┤      sums[r][v] += x[r, k] · w[k, v]   r: row, v: register
      w[k, 0 … lanes-1] ── int8 → float32 ┘                       one fma or one product of pairs

A row's sums are taken in the order of k, alone in their lanes, whatever the tile has beside them: a
row of a result has the same bits with any neighbours. Scales are applied to the float32 sums of a
group, so no weight is rounded.

With products of pairs (AVX512-BF16) a step is two k. Its weights lie as one row of even and one of
odd k, and are put side by side in the register: an integer up to 127 in float32 has its lower 16
bits zero, and the upper 16 are the same number in bfloat16.

      even k, as float32   e e 0 0     shifted right by 16   0 0 e e   or   o o e e   a pair
      odd k, as float32    o o 0 0                                  ─▶   as x[r, k], x[r, k+1] lie
"""

import itertools
from typing import Literal, NamedTuple

from actors.kernels.cpu.llvm_text import Function, Module, Value, vector

REGISTERS = 2  # of columns in a panel
UNROLLED = 4  # steps of k between two tests of the loop
CACHE_LINE_BYTES = 64
PREFETCHED = 2048  # bytes of a panel between the weights in use and those that are requested
# Cephes' polynomial for expf, the highest power first.
EXP_LEADING_COEFFICIENT = 1.9875691500e-4
EXP_COEFFICIENTS = (
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


class InstructionSet(NamedTuple):
    """What a CPU can do, and the sizes that go with it."""

    name: str
    lanes: int  # float32 numbers in a register
    registers: int
    # of a tile: with two registers of sums each they leave a few registers for weights and x
    rows: int
    # of float32; of two bfloat16 in one instruction; the same in several, for tests
    # and a register of rows with one of columns
    dot: Literal["fma", "pairs", "split pairs", "tile registers"]
    needs: tuple[str, ...]  # features of the CPU, as LLVM names them

    @property
    def pairs(self) -> bool:
        """Whether a step is two k, and x and hidden activations are bfloat16."""
        return self.dot != "fma"

    @property
    def has_tile_registers(self) -> bool:
        """Whether products are those of `amx.py`."""
        return self.dot == "tile registers"

    @property
    def readable_rows(self) -> int:
        """Rows that follow the last one in memory: tile registers are loaded at full height."""
        return self.rows if self.has_tile_registers else 0

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return REGISTERS * self.lanes

    @property
    def step_bytes(self) -> int:
        """Bytes of a panel's weights in one step."""
        return self.panel * (2 if self.pairs else 1)

    def panels_of(self, rows: int) -> int:
        """Returns how many panels a tile has.

        Two, if their sums and weights and two values of x fit into the registers.
        """
        registers_for_two = 2 * REGISTERS * (rows + 1) + 2
        return 2 if registers_for_two <= self.registers else 1

    @property
    def floats(self) -> str:
        """A register of float32 numbers."""
        return vector("float", self.lanes)

    @property
    def ints(self) -> str:
        """A register of 32-bit integers."""
        return vector("i32", self.lanes)


AVX2 = InstructionSet("avx2", 8, 16, 6, "fma", ("avx2", "fma"))
AVX512 = InstructionSet("avx512", 16, 32, 12, "fma", ("avx512f",))
AVX512_BF16 = InstructionSet("avx512_bf16", 16, 32, 12, "pairs", ("avx512f", "avx512bf16"))
AMX_BF16 = InstructionSet(
    "amx_bf16", 16, 32, 32, "tile registers", ("avx512f", "amx-tile", "amx-bf16")
)
AVX2_PAIRS = InstructionSet(
    "avx2_pairs", 8, 16, 6, "split pairs", AVX2.needs
)  # everything of AVX512-BF16 but its instruction: for tests
ALL = (AVX2, AVX512, AVX512_BF16, AMX_BF16, AVX2_PAIRS)
INSTRUCTION_SETS = {machine.name: machine for machine in ALL}

PRODUCTS_PARAMETERS = {
    "ids": "ptr",
    "count": "i64",
    "x": "ptr",
    "row_words": "i64",
    "panel_0": "ptr",
    "scales_0": "ptr",
    "panel_1": "ptr",
    "scales_1": "ptr",
    "groups": "i64",
    "steps": "i64",
    "sums": "ptr",
    # of AMX: the panels as its registers read them, once widened
    "widened": "ptr",
    "is_widened": "i64",
}
TILE_PARAMETERS = {
    "rows": "ptr",
    "panel_0": "ptr",
    "panel_1": "ptr",
    "scales_0": "ptr",
    "scales_1": "ptr",
    "steps": "i64",
    "sums": "ptr",
}


def write_products(module: Module, machine: InstructionSet) -> Function:
    """Writes the function `products`, with the arguments PRODUCTS_PARAMETERS.

    sums[i, :] = Σ over groups g of scales[g] · Σ over the steps of g of x[ids[i]] · panel, for i <
    count ≤ `rows`; both panels' columns side by side. A row of x is `row_words` words of 4 bytes,
    one for each step.
    """
    f = module.function("products", "void", PRODUCTS_PARAMETERS)
    row_counts = range(1, machine.rows + 1)
    tiles = [_write_tile(module, machine, rows, machine.panels_of(rows)) for rows in row_counts]

    pointers = f.alloca("ptr", count=machine.rows)
    width = 2 * machine.panel
    with f.loop(0, f["count"] * width, machine.lanes) as i:
        f.store(f.constant(0.0, machine.floats), f.gep(f["sums"], i, "float"), 4)

    with f.loop(0, f["groups"]) as group:
        first = group * f["steps"]
        with f.loop(0, f["count"]) as i:
            row = f.load(f.gep(f["ids"], i, "i32"), "i32", 4).cast("sext", "i64") * f["row_words"]
            f.store(f.gep(f["x"], row + first, "float"), f.gep(pointers, i, "ptr"), 8)

        panels = [f.gep(f[f"panel_{p}"], first * machine.step_bytes) for p in (0, 1)]
        scales = [f.gep(f[f"scales_{p}"], group * machine.panel, "float") for p in (0, 1)]
        sums = [f.gep(f["sums"], p * machine.panel, "float") for p in (0, 1)]
        steps = f["steps"]
        for rows, tile in enumerate(tiles, 1):
            with f.if_then(f["count"].compare("eq", rows)):
                if machine.panels_of(rows) == 2:
                    f.call(tile, pointers, *panels, *scales, steps, sums[0])
                else:
                    for p in (0, 1):
                        f.call(
                            tile,
                            pointers,
                            panels[p],
                            panels[p],
                            scales[p],
                            scales[p],
                            steps,
                            sums[p],
                        )
    f.ret()
    return f


def _write_tile(module: Module, machine: InstructionSet, rows: int, panels: int) -> Function:
    """Writes tile(rows of x, panels, their scales, steps, sums).

    sums[r, v] += scales[v] · Σ over k of x[r, k] · w[k, v].
    """
    f = module.function(f"tile_{rows}x{panels}", "void", TILE_PARAMETERS)
    xs = [f.load(f.gep(f["rows"], r, "ptr"), "ptr", 8) for r in range(rows)]
    columns = list(itertools.product(range(panels), range(REGISTERS)))
    sums = [_zero_sums(f, machine, len(columns)) for _ in range(rows)]

    def write_step(k: Value) -> None:
        weights = []
        for panel, register in columns:
            panel_row = f.gep(f[f"panel_{panel}"], k * machine.step_bytes)
            weights.append(widen(f, machine, panel_row, register))
        for x, row_sums in zip(xs, sums, strict=True):
            number = f.load(f.gep(x, k, "float"), "i32" if machine.pairs else "float", 4)
            factor = number.splat(machine.lanes)
            for total, weight in zip(row_sums, weights, strict=True):
                f.store(_dot(f, machine, factor, weight, f.load(total, machine.floats)), total)

    unrolled_end = f["steps"] - f["steps"] % UNROLLED
    with f.loop(0, unrolled_end, UNROLLED) as k:
        for panel in range(panels):
            _prefetch(f, machine, f[f"panel_{panel}"], k)
        for i in range(UNROLLED):
            write_step(k + i)
    with f.loop(unrolled_end, f["steps"]) as k:
        write_step(k)

    for r, row_sums in enumerate(sums):
        for c, total in enumerate(row_sums):
            panel, register = columns[c]
            scales = f.gep(f[f"scales_{panel}"], register * machine.lanes, "float")
            out = f.gep(f["sums"], r * 2 * machine.panel + c * machine.lanes, "float")
            earlier_groups = f.load(out, machine.floats, 4)
            group_sum = f.load(total, machine.floats)
            scaled = f.fma(group_sum, f.load(scales, machine.floats, 4), earlier_groups)
            f.store(scaled, out, 4)
    f.ret()
    return f


def _prefetch(f: Function, machine: InstructionSet, panel: Value, k: Value) -> None:
    """Requests the weights that are PREFETCHED bytes ahead of the steps k … k + UNROLLED - 1.

    The processor's own prefetching ends at each page of 4,096 bytes.
    """
    ahead = f.gep(panel, k * machine.step_bytes + PREFETCHED)
    for offset in range(0, UNROLLED * machine.step_bytes, CACHE_LINE_BYTES):
        request_line(f, f.gep(ahead, offset))


def request_line(f: Function, address: Value) -> None:
    """Requests the cache line at an address, which need not be memory of this process."""
    for_reading = f.constant(0, "i32")
    all_caches = f.constant(3, "i32")
    of_data = f.constant(1, "i32")
    f.call_external("llvm.prefetch.p0", "void", address, for_reading, all_caches, of_data)


def _zero_sums(f: Function, machine: InstructionSet, count: int) -> list[Value]:
    return [f.alloca(machine.floats, 0.0) for _ in range(count)]


def widen(f: Function, machine: InstructionSet, row: Value, register: int) -> Value:
    """Returns a register of a panel's weights in one step.

    Float32, or pairs of bfloat16 as 32-bit integers.
    """

    def integers(offset: int) -> Value:
        raw = f.load(f.gep(row, offset), vector("i8", machine.lanes))
        return raw.cast("sext", machine.ints).cast("sitofp", machine.floats)

    first = integers(register * machine.lanes)
    if not machine.pairs:
        return first
    second = integers(machine.panel + register * machine.lanes)
    return (first.cast("bitcast", machine.ints) >> 16) | second.cast("bitcast", machine.ints)


def _dot(f: Function, machine: InstructionSet, x: Value, weight: Value, total: Value) -> Value:
    """Returns total + x · weight, lane by lane.

    Of pairs, both products are added, the second one first.
    """
    if machine.dot == "fma":
        return f.fma(x, weight, total)
    if machine.dot == "pairs":
        pairs_type = vector("bfloat", 2 * machine.lanes)
        x_pairs = x.cast("bitcast", pairs_type)
        weight_pairs = weight.cast("bitcast", pairs_type)
        return f.call_external(
            "llvm.x86.avx512bf16.dpbf16ps.512", machine.floats, total, x_pairs, weight_pairs
        )
    upper = (x & -65536, weight & -65536)
    lower = (x << 16, weight << 16)
    for x_half, weight_half in (upper, lower):
        x_numbers = x_half.cast("bitcast", machine.floats)
        total = f.fma(x_numbers, weight_half.cast("bitcast", machine.floats), total)
    return total


def gelu(f: Function, machine: InstructionSet, x: Value) -> Value:
    """Returns gelu by the tanh approximation: x / (1 + exp(-2u)), u = sqrt(2/π)·(x + 0.044715·x³).

    That is x/2·(1 + tanh u).
    """
    cube = x * x * x * 0.044715
    return x / (_exp(f, machine, (x + cube) * (-2 * 0.7978845608028654)) + 1.0)


def _exp(f: Function, machine: InstructionSet, x: Value) -> Value:
    """Returns exp(x) = 2^n · exp(r), n an integer and |r| ≤ ln(2)/2.

    Cephes' polynomial for expf, within 2 units in the last place. x is clamped to -87 … 88, where
    the result is a normal number.
    """
    x = x.minimum(88.0).maximum(-87.0)
    n = f.call_external(f"llvm.rint.v{machine.lanes}f32", machine.floats, x * 1.4426950408889634)
    r = x
    # ln 2 in two parts, so that n·ln 2 is subtracted exactly
    for part in (-0.693359375, 2.12194440e-4):
        r = f.fma(n, f.constant(part, machine.floats), r)
    polynomial = f.constant(EXP_LEADING_COEFFICIENT, machine.floats)
    for coefficient in EXP_COEFFICIENTS:
        polynomial = f.fma(polynomial, r, f.constant(coefficient, machine.floats))
    power = ((n.cast("fptosi", machine.ints) + 127) << 23).cast("bitcast", machine.floats)
    return f.fma(polynomial, r * r, r + 1.0) * power


def bfloat16_bits(machine: InstructionSet, x: Value) -> Value:
    """Returns float32 numbers rounded to the nearest bfloat16, ties to even; NaN stays NaN.

    The result is its bits in the upper half of 32.
    """
    bits = x.cast("bitcast", machine.ints)
    rounded = bits + ((bits >> 16) & 1) + 0x7FFF
    return x.compare("uno", x).select(bits | 0x400000, rounded) & -65536
