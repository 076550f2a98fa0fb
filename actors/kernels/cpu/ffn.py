"""The experts of a layer in machine code: a function that XLA calls with activations, routing and packed weights.

Input: a module to write to, an instruction set, a type of activations. Output: in it, the handler
of a call (see `ARGUMENTS`) and the two kinds of tasks that the call is divided into. Knows nothing
of JAX.

    chosen [N, X] ── count ──▶ assignments of each expert, in the order of tokens     order   e0 e0 e0 e1 e3 e3 e3 e3 e3
                                                                                      begin   0        3  4  4              9
    tasks of stage 1: an expert x some panels of F        hidden[a, panel] = gelu(x · gate) × (x · value)
    ── all done ──
    tasks of stage 2: an expert x two panels of D         rows[a, panels] = hidden · out

Both stages are run for as many assignments at a time as the scratch memory has rows for `hidden`. A
task computes all of its expert's rows among them, a block after the other so that x stays in a
core's cache; an expert without any costs nothing. Row a of the result belongs to assignment a =
token·X + choice: nothing is gathered or sorted outside.
"""

from collections.abc import Callable
from typing import NamedTuple

from actors.kernels.cpu.llvm_text import Function, Module, Value, vector
from actors.kernels.cpu.tasks import ARGUMENTS as ARGUMENT_SIDE
from actors.kernels.cpu.tasks import JOB, RESULTS, Buffer, Struct, begin_handler, new_job, write_run
from actors.kernels.cpu.tiles import InstructionSet, bfloat16_bits, gelu, write_products

ARGUMENTS = ("x", "chosen", "gate", "gate_scales", "value", "value_scales", "out", "out_scales")
ROWS_AT_ONCE = 96  # of an expert: x of so many rows is read again for every panel
# of weights, at least: taking a task costs as much as reading some hundred bytes
TASK_BYTES = 1 << 17

FIELDS = (
    *JOB,
    # buffers
    *("x", "gate", "gate_scales", "value", "value_scales", "out", "out_scales", "hidden", "rows"),
    # where experts begin in `order`; the tokens of `order`; 0, 1, 2, …
    *("begin", "order", "tokens", "numbers"),
    *("first", "end"),  # the part of `order` that is computed now
    # of the weights this stage reads
    *("panels", "steps", "groups", "panels_per_task", "tasks_per_expert"),
    # words of a row of x and of hidden; columns of the result
    *("x_words", "hidden_words", "columns"),
)
_CALL = Struct(*FIELDS)


class _Rows(NamedTuple):
    """A few rows of one expert that a task computes together."""

    first: Value
    size: Value


def write_experts(module: Module, machine: InstructionSet, name: str, *, bfloat16: bool) -> None:
    """Writes the handler `name`.

    Results are bfloat16 or float32, hidden activations are rounded to the same.
    """
    products, run = write_products(module, machine), write_run(module)
    hidden = _write_hidden(module, machine, products, bfloat16=bfloat16)
    rows = _write_rows(module, machine, products, bfloat16=bfloat16)
    f = begin_handler(module, name)
    given = {
        each: Buffer(f, f["frame"], ARGUMENT_SIDE, index) for index, each in enumerate(ARGUMENTS)
    }
    out, scratch = (Buffer(f, f["frame"], RESULTS, index) for index in (0, 1))
    assignments = given["chosen"].dimension(0) * given["chosen"].dimension(1)
    experts = given["gate"].dimension(0)
    at_once = scratch.dimension(0)
    begin = f.call_named("malloc", "ptr", (experts + 2) * 8 + (assignments * 2 + at_once) * 4)
    order = f.at(begin, experts + 2, "i64")
    tokens, numbers = f.at(order, assignments, "i32"), f.at(order, assignments * 2, "i32")
    row_bytes = out.dimension(1) * (2 if bfloat16 else 4)
    _sort(
        f,
        given["chosen"],
        experts,
        begin,
        order,
        tokens,
        lambda a: _clear(f, f.at(out.data, a * row_bytes), row_bytes),
    )
    with f.loop(0, at_once) as i:
        f.store(i.cast("trunc", "i32"), f.at(numbers, i, "i32"), 4)
    shared = {each: given[each].data for each in ARGUMENTS if each != "chosen"} | {
        "hidden": scratch.data, "rows": out.data, "begin": begin, "order": order, "tokens": tokens, "numbers": numbers,
        "x_words": given["gate"].dimension(2), "hidden_words": scratch.dimension(1), "columns": out.dimension(1),
    }  # fmt: skip
    used = f.load(f.at(begin, experts, "i64"), "i64", 8)
    with f.loop(0, used, at_once) as first:
        part = {"first": first, "end": (first + at_once).at_most(used)}
        for body, weight, at_a_time in ((hidden, "gate", 1), (rows, "out", 2)):
            sizes = _division(given[weight], given[f"{weight}_scales"], at_a_time, machine)
            tasks = experts * sizes["tasks_per_expert"]
            f.call(run, f["frame"], new_job(f, _CALL, body, tasks, shared | part | sizes))
    f.call_named("free", "void", begin)
    f.give(f.number(0, "ptr"))


def _division(
    weight: Buffer, scales: Buffer, at_once: int, machine: InstructionSet
) -> dict[str, Value]:
    """Returns a stage's fields: sizes of the weights it reads, and how many of their panels are one task, `at_once` or more."""
    panels, steps, groups = weight.dimension(1), weight.dimension(2), scales.dimension(2)
    task = (
        steps.function.number(TASK_BYTES) // (steps * (2 * machine.step_bytes)) * at_once
    ).at_least(at_once)
    return {
        "panels": panels,
        "steps": steps // groups,
        "groups": groups,
        "panels_per_task": task,
        "tasks_per_expert": panels.ceil_div(task),
    }


def _sort(
    f: Function,
    chosen: Buffer,
    experts: Value,
    begin: Value,
    order: Value,
    tokens: Value,
    unused: Callable[[Value], None],
) -> None:
    """Lists each expert's assignments: expert e has order[begin[e]] … order[begin[e + 1] - 1].

    `unused` gets those of none.
    """
    choices = chosen.dimension(1)
    with f.loop(0, experts + 2) as e:
        f.store(f.number(0), f.at(begin, e, "i64"), 8)

    def entry(e: Value, further: int) -> Value:
        return f.at(begin, e + further, "i64")

    def raised(place: Value, by: Value) -> Value:
        before = f.load(place, "i64", 8)
        f.store(before + by, place, 8)
        return before

    with f.loop(0, chosen.dimension(0) * choices) as a:  # counted two entries further …
        e = f.load(f.at(chosen.data, a, "i32"), "i32", 4).cast("sext", "i64")
        used = e.compared("ult", experts)
        with f.when(used):
            raised(entry(e, 2), f.number(1))
        with f.when(used.compared("eq", 0)):
            unused(a)
    with f.loop(0, experts) as e:  # … then entry e + 1 is where expert e begins …
        raised(entry(e, 2), f.load(entry(e, 1), "i64", 8))
    with f.loop(0, chosen.dimension(0) * choices) as a:  # … and, once all are listed, where it ends
        e = f.load(f.at(chosen.data, a, "i32"), "i32", 4).cast("sext", "i64")
        with f.when(e.compared("ult", experts)):
            place = raised(entry(e, 1), f.number(1))
            f.store(a.cast("trunc", "i32"), f.at(order, place, "i32"), 4)
            f.store((a // choices).cast("trunc", "i32"), f.at(tokens, place, "i32"), 4)


def _clear(f: Function, row: Value, size: Value) -> None:
    f.call_named("llvm.memset.p0.i64", "void", row, f.number(0, "i8"), size, f.number(0, "i1"))


def _write_hidden(
    module: Module, machine: InstructionSet, products: Function, *, bfloat16: bool
) -> Function:
    """Writes hidden(job, task): gelu(x · gate) × (x · value) of one expert's rows, for some panels of its width."""
    f = module.function("hidden", "void", {"job": "ptr", "task": "i64"})
    job = f["job"]
    sums = f.local("float", count=machine.rows * 2 * machine.panel)

    def compute(expert: Value, panel: Value, rows: _Rows) -> None:
        weights = [
            w for name in ("gate", "value") for w in _panel(f, machine, job, name, expert, panel)
        ]
        ids = f.at(_CALL.load(f, job, "tokens", "ptr"), rows.first, "i32")
        x = [_CALL.load(f, job, "x", "ptr"), _CALL.load(f, job, "x_words")]
        f.call(
            products,
            ids,
            rows.size,
            *x,
            *weights,
            _CALL.load(f, job, "groups"),
            _CALL.load(f, job, "steps"),
            sums,
        )
        with f.loop(0, rows.size) as i:
            row = (
                _CALL.load(f, job, "hidden_words")
                * (rows.first + i - _CALL.load(f, job, "first"))
                * 4
            )
            to = f.at(
                f.at(_CALL.load(f, job, "hidden", "ptr"), row),
                panel * (machine.panel * (2 if machine.pairs else 4)),
            )
            for register in range(0, machine.panel, machine.lanes):
                gate, value = (
                    f.load(
                        f.at(
                            sums, i * (2 * machine.panel) + side * machine.panel + register, "float"
                        ),
                        machine.floats,
                        4,
                    )
                    for side in (0, 1)
                )
                _store(
                    f,
                    machine,
                    gelu(f, machine, gate) * value,
                    to,
                    register,
                    rounded=bfloat16,
                    half=machine.pairs,
                )

    _for_each_tile(f, machine, 1, compute)
    f.give()
    return f


def _write_rows(
    module: Module, machine: InstructionSet, products: Function, *, bfloat16: bool
) -> Function:
    """Writes rows(job, task): hidden · out of one expert's rows, for some panels of the result's columns, two at a time."""
    f = module.function("rows", "void", {"job": "ptr", "task": "i64"})
    job, width, size = f["job"], 2 * machine.panel, 2 if bfloat16 else 4
    sums, result = f.local("float", count=machine.rows * width), f.local("float", count=width)

    def compute(expert: Value, panel: Value, rows: _Rows) -> None:
        last = _CALL.load(f, job, "panels") - 1  # computed twice where there is no second one
        weights = [
            w
            for p in (panel, (panel + 1).at_most(last))
            for w in _panel(f, machine, job, "out", expert, p)
        ]
        ids = f.at(
            _CALL.load(f, job, "numbers", "ptr"), rows.first - _CALL.load(f, job, "first"), "i32"
        )
        x = [_CALL.load(f, job, "hidden", "ptr"), _CALL.load(f, job, "hidden_words")]
        f.call(
            products,
            ids,
            rows.size,
            *x,
            *weights,
            _CALL.load(f, job, "groups"),
            _CALL.load(f, job, "steps"),
            sums,
        )
        columns = _CALL.load(f, job, "columns")
        begin = panel * machine.panel
        used = (columns - begin).at_most(width) * size
        with f.loop(0, rows.size) as i:
            for register in range(0, width, machine.lanes):
                total = f.load(f.at(sums, i * width + register, "float"), machine.floats, 4)
                _store(f, machine, total, result, register, rounded=bfloat16, half=bfloat16)
            a = f.load(
                f.at(_CALL.load(f, job, "order", "ptr"), rows.first + i, "i32"), "i32", 4
            ).cast("sext", "i64")
            to = f.at(_CALL.load(f, job, "rows", "ptr"), (a * columns + begin) * size)
            f.call_named("llvm.memcpy.p0.p0.i64", "void", to, result, used, f.number(0, "i1"))

    _for_each_tile(f, machine, 2, compute)
    f.give()
    return f


def _for_each_tile(
    f: Function,
    machine: InstructionSet,
    at_once: int,
    compute: Callable[[Value, Value, _Rows], None],
) -> None:
    """Writes the loops of a task over its expert's rows and its panels, `at_once` at a time.

    Tiles have nearly equal rows.
    """
    job, per_expert = f["job"], _CALL.load(f, f["job"], "tasks_per_expert")
    expert, each = f["task"] // per_expert, _CALL.load(f, job, "panels_per_task")
    first_panel = f["task"] % per_expert * each
    end_panel = (first_panel + each).at_most(_CALL.load(f, job, "panels"))
    begin = _CALL.load(f, job, "begin", "ptr")
    first = f.load(f.at(begin, expert, "i64"), "i64", 8).at_least(_CALL.load(f, job, "first"))
    end = f.load(f.at(begin, expert + 1, "i64"), "i64", 8).at_most(_CALL.load(f, job, "end"))
    with f.loop(first, end, ROWS_AT_ONCE) as block:
        block_end = (block + ROWS_AT_ONCE).at_most(end)
        tiles = (block_end - block).ceil_div(machine.rows)
        rows = (block_end - block).ceil_div(tiles)
        with (
            f.loop(first_panel, end_panel, at_once) as panel,
            f.loop(block, block_end, rows) as row,
        ):
            compute(expert, panel, _Rows(row, (block_end - row).at_most(rows)))


def _panel(
    f: Function, machine: InstructionSet, job: Value, weight: str, expert: Value, panel: Value
) -> tuple[Value, Value]:
    """Returns the addresses of a panel of an expert and of its scales."""
    groups = _CALL.load(f, job, "groups")
    number = expert * _CALL.load(f, job, "panels") + panel
    weights = f.at(
        _CALL.load(f, job, weight, "ptr"),
        number * groups * _CALL.load(f, job, "steps") * machine.step_bytes,
    )
    return weights, f.at(
        _CALL.load(f, job, f"{weight}_scales", "ptr"), number * groups * machine.panel, "float"
    )


def _store(
    f: Function,
    machine: InstructionSet,
    x: Value,
    row: Value,
    column: int,
    *,
    rounded: bool,
    half: bool,
) -> None:
    """Writes a register of numbers to a row, rounded to bfloat16 if wanted, in 16 bits or in 32."""
    if rounded:
        bits = bfloat16_bits(machine, x)
        x = (bits >> 16).cast("trunc", vector("i16", machine.lanes)) if half else bits
    f.store(x, f.at(row, column * (2 if half else 4)))
