"""The arithmetic of CPU kernels: products of a few rows and a panel of packed int8 weights, gelu, rounding to bfloat16.

Input: a module to write to and an instruction set. Output: functions in it. Knows nothing of
threads, of XLA or of experts.

A weight [K, N] is packed once into panels of so many columns as two registers hold, each panel row
after row, so that a product reads memory from front to back and whole registers at a time:

               N columns                                     panel 0     panel 1     …
            ┌───────┬───────┬── ─                          ┌─────────┬─────────┬── ─
     K rows │ k=0   │ k=0   │          in memory:          │k=0 … K-1│k=0 … K-1│        one panel of one step is `panel` bytes
            │ k=1   │ k=1   │                              └─────────┴─────────┴── ─
            └───────┴───────┴── ─      the last panel is filled up with zeros

A tile is the product of up to `rows` rows and a panel, or two panels when there are so few rows
that half of the registers would be idle. Its sums stay in registers while k runs; each weight is
read once, widened in a register and used for all rows of the tile:

      x[0, k] ── everywhere ──┐
      x[1, k] ── everywhere ──┤      sums[r][v] += x[r, k] · w[k, v]        r: row, v: register of columns
      w[k, 0 … lanes-1] ── int8 → float32 ┘                                 one fma or one product of pairs

A row's sums are taken in the order of k, alone in their lanes, whatever the tile has beside them: a
row of a result is the same bits with any neighbours. Scales are applied to the float32 sums of a
group, so no weight is rounded.

With products of pairs (AVX512-BF16) a step is two k. Its weights lie as one row of even and one of
odd k, and are put side by side in the register: an integer up to 127 in float32 has its lower 16
bits zero, and the upper 16 are the same number in bfloat16.

      even k, as float32   e e 0 0        shifted right by 16   0 0 e e      or   o o e e     two bfloat16 in one lane
      odd k, as float32    o o 0 0                                           ─▶   as x[r, k] and x[r, k+1] lie in memory
"""

from typing import Literal, NamedTuple

from actors.kernels.cpu.llvm_text import Function, Module, Value, vector

REGISTERS = 2  # of columns in a panel
UNROLLED = 4  # steps of k between two tests of the loop


class InstructionSet(NamedTuple):
    """What a CPU can do, and the sizes that go with it."""

    name: str
    lanes: int  # float32 numbers in a register
    registers: int
    # of a tile: with two registers of sums each they leave a few registers for weights and x
    rows: int
    # of float32; of two bfloat16 in one instruction; the same in several, for tests
    dot: Literal["fma", "pairs", "split pairs"]
    needs: tuple[str, ...]  # features of the CPU, as LLVM names them

    @property
    def pairs(self) -> bool:
        """Whether a step is two k, and x and hidden activations are bfloat16."""
        return self.dot != "fma"

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return REGISTERS * self.lanes

    @property
    def step_bytes(self) -> int:
        """Bytes of a panel's weights in one step."""
        return self.panel * (2 if self.pairs else 1)

    def panels_of(self, rows: int) -> int:
        """Returns how many panels a tile has: two, if their sums and weights and two values of x find room in the registers."""
        return 2 if 2 * REGISTERS * (rows + 1) + 2 <= self.registers else 1

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
AVX2_PAIRS = InstructionSet(
    "avx2_pairs", 8, 16, 6, "split pairs", AVX2.needs
)  # everything of AVX512-BF16 but its instruction: for tests
INSTRUCTION_SETS = {each.name: each for each in (AVX2, AVX512, AVX512_BF16, AVX2_PAIRS)}


def write_products(module: Module, machine: InstructionSet) -> Function:
    """Writes products(ids, count, x, row_words, panel_0, scales_0, panel_1, scales_1, groups, steps, sums).

    sums[i, :] = Σ over groups g of scales[g] · Σ over the steps of g of x[ids[i]] · panel, for i <
    count ≤ `rows`; both panels' columns side by side. A row of x is `row_words` words of 4 bytes,
    one for each step.
    """
    names = (
        "ids",
        "count",
        "x",
        "row_words",
        "panel_0",
        "scales_0",
        "panel_1",
        "scales_1",
        "groups",
        "steps",
        "sums",
    )
    numbers = {"count", "row_words", "groups", "steps"}
    f = module.function(
        "products", "void", {name: "i64" if name in numbers else "ptr" for name in names}
    )
    tiles = [
        _write_tile(module, machine, rows, machine.panels_of(rows))
        for rows in range(1, machine.rows + 1)
    ]
    pointers = f.local("ptr", count=machine.rows)
    width = 2 * machine.panel
    with f.loop(0, f["count"] * width, machine.lanes) as i:
        f.store(f.number(0.0, machine.floats), f.at(f["sums"], i, "float"), 4)
    with f.loop(0, f["groups"]) as group:
        first = group * f["steps"]
        with f.loop(0, f["count"]) as i:
            row = f.load(f.at(f["ids"], i, "i32"), "i32", 4).cast("sext", "i64") * f["row_words"]
            f.store(f.at(f["x"], row + first, "float"), f.at(pointers, i, "ptr"), 8)
        panels = [f.at(f[f"panel_{p}"], first * machine.step_bytes) for p in (0, 1)]
        scales = [f.at(f[f"scales_{p}"], group * machine.panel, "float") for p in (0, 1)]
        sums = [f.at(f["sums"], p * machine.panel, "float") for p in (0, 1)]
        for rows, tile in enumerate(tiles, 1):
            with f.when(f["count"].compared("eq", rows)):
                if machine.panels_of(rows) == 2:
                    f.call(
                        tile,
                        pointers,
                        panels[0],
                        panels[1],
                        scales[0],
                        scales[1],
                        f["steps"],
                        sums[0],
                    )
                else:
                    for p in (0, 1):
                        f.call(
                            tile,
                            pointers,
                            panels[p],
                            panels[p],
                            scales[p],
                            scales[p],
                            f["steps"],
                            sums[p],
                        )
    f.give()
    return f


def _write_tile(module: Module, machine: InstructionSet, rows: int, panels: int) -> Function:
    """Writes tile(rows of x, panels, their scales, steps, sums): sums[r, v] += scales[v] · Σ over k of x[r, k] · w[k, v]."""
    parameters = dict.fromkeys(("rows", "panel_0", "panel_1", "scales_0", "scales_1"), "ptr") | {
        "steps": "i64",
        "sums": "ptr",
    }
    f = module.function(f"tile_{rows}x{panels}", "void", parameters)
    xs = [f.load(f.at(f["rows"], r, "ptr"), "ptr", 8) for r in range(rows)]
    columns = [(f[f"panel_{p}"], register) for p in range(panels) for register in range(REGISTERS)]
    sums = [[f.local(machine.floats, 0.0) for _ in columns] for _ in range(rows)]

    def step(k: Value) -> None:
        weights = [
            _widened(f, machine, f.at(panel, k * machine.step_bytes), register)
            for panel, register in columns
        ]
        for x, row in zip(xs, sums, strict=True):
            factor = f.load(f.at(x, k, "float"), "i32" if machine.pairs else "float", 4).everywhere(
                machine.lanes
            )
            for total, weight in zip(row, weights, strict=True):
                f.store(_dot(f, machine, factor, weight, f.load(total, machine.floats)), total)

    whole = f["steps"] - f["steps"] % UNROLLED
    with f.loop(0, whole, UNROLLED) as k:
        for i in range(UNROLLED):
            step(k + i)
    with f.loop(whole, f["steps"]) as k:
        step(k)
    for r, row in enumerate(sums):
        for c, total in enumerate(row):
            scales = f.at(f[f"scales_{c // REGISTERS}"], c % REGISTERS * machine.lanes, "float")
            out = f.at(f["sums"], r * 2 * machine.panel + c * machine.lanes, "float")
            groups = f.load(out, machine.floats, 4)
            f.store(
                f.fma(f.load(total, machine.floats), f.load(scales, machine.floats, 4), groups),
                out,
                4,
            )
    f.give()
    return f


def _widened(f: Function, machine: InstructionSet, row: Value, register: int) -> Value:
    """Returns a register of a panel's weights in one step: float32, or pairs of bfloat16 as 32-bit integers."""

    def integers(offset: int) -> Value:
        raw = f.load(f.at(row, offset), vector("i8", machine.lanes))
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
        both = [each.cast("bitcast", vector("bfloat", 2 * machine.lanes)) for each in (x, weight)]
        return f.call_named("llvm.x86.avx512bf16.dpbf16ps.512", machine.floats, total, *both)
    for x_half, weight_half in ((x & -65536, weight & -65536), (x << 16, weight << 16)):
        total = f.fma(
            x_half.cast("bitcast", machine.floats),
            weight_half.cast("bitcast", machine.floats),
            total,
        )
    return total


def gelu(f: Function, machine: InstructionSet, x: Value) -> Value:
    """Returns gelu by the tanh approximation: x / (1 + exp(-2u)), u = sqrt(2/π)·(x + 0.044715·x³).

    That is x/2·(1 + tanh u).
    """
    cube = x * x * x * 0.044715
    return x / (_exp(f, machine, (x + cube) * (-2 * 0.7978845608028654)) + 1.0)


def _exp(f: Function, machine: InstructionSet, x: Value) -> Value:
    """Returns exp(x) = 2^n · exp(r), n whole and |r| ≤ ln(2)/2, by Cephes' polynomial for expf: within 2 units in the last place.

    x is held to -87 … 88, where the result is a normal number.
    """
    x = x.at_most(88.0).at_least(-87.0)
    n = f.call_named(f"llvm.rint.v{machine.lanes}f32", machine.floats, x * 1.4426950408889634)
    r = x
    # ln 2 in two parts, so that n·ln 2 is subtracted exactly
    for part in (-0.693359375, 2.12194440e-4):
        r = f.fma(n, f.number(part, machine.floats), r)
    polynomial = f.number(1.9875691500e-4, machine.floats)
    for coefficient in (
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ):
        polynomial = f.fma(polynomial, r, f.number(coefficient, machine.floats))
    power = ((n.cast("fptosi", machine.ints) + 127) << 23).cast("bitcast", machine.floats)
    return f.fma(polynomial, r * r, r + 1.0) * power


def bfloat16_bits(machine: InstructionSet, x: Value) -> Value:
    """Returns float32 numbers rounded to the nearest bfloat16, ties to even: its bits in the upper half of 32. NaN stays NaN."""
    bits = x.cast("bitcast", machine.ints)
    rounded = bits + ((bits >> 16) & 1) + 0x7FFF
    return x.compared("uno", x).choose(bits | 0x400000, rounded) & -65536
