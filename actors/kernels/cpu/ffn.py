"""The experts of a layer in machine code: a function that XLA calls once per layer.

Writes the handler of a call (see `ARGUMENTS`) and the two kinds of tasks that the call is divided
into.

    chosen [N, X] ── count ──▶ assignments of each expert, in the order of tokens

                                     order   e0 e0 e0 e1 e3 e3 e3 e3 e3
                                     begin   0        3  4  4              9

    (AMX)              gathered[a] = x[token of a]
    tasks of stage 1: an expert x some panels of F   hidden[a, panel] = gelu(x · gate) × (x · value)
    ── all done ──
    tasks of stage 2: an expert x two panels of D    rows[a, panels] = hidden · out

Both stages run for as many assignments at a time as the scratch memory has rows for `hidden`. A
task computes all of its expert's rows among them, a block after the other so that x stays in a
core's cache; an expert without any costs nothing. Row a of the result belongs to assignment a =
token·X + choice: nothing is gathered or sorted outside.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from actors.kernels.cpu import amx, tiles
from actors.kernels.cpu.llvm_text import Function, Module, Value, vector
from actors.kernels.cpu.tasks import (
    CALL_ARGUMENTS,
    CALL_RESULTS,
    JOB,
    Buffer,
    Struct,
    begin_handler,
    new_job,
    write_run,
)
from actors.kernels.cpu.tiles import CACHE_LINE_BYTES, InstructionSet, bfloat16_bits, gelu

ARGUMENTS = ("x", "chosen", "gate", "gate_scales", "value", "value_scales", "out", "out_scales")
# Rows of an expert in a block: x of so many rows is read again for every panel.
BLOCK_ROWS = 96
# … and of AMX, for which each panel is widened once per block
AMX_BLOCK_ROWS = 256
# Rows of a task that gathers x.
GATHERED_ROWS = 64
# Bytes of weights of a task, at least: taking a task costs as much as reading some hundred bytes.
TASK_BYTES = 1 << 17

FIELDS = (
    *JOB,
    # buffers
    *("x", "gate", "gate_scales", "value", "value_scales", "out", "out_scales", "hidden", "rows"),
    # where experts begin in `order`; the tokens of `order`; 0, 1, 2, …
    *("begin", "order", "tokens", "numbers"),
    *("first", "end"),  # the part of `order` that is computed now
    "x_ids",  # rows of x that belong to `order`
    *("gathered", "token_words"),  # x in the order of `first` … `end`; words of a row outside of it
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


class _Stages(NamedTuple):
    """What runs jobs, and the bodies of their tasks; x is gathered for tile registers only."""

    run: Function
    gather: Function
    hidden: Function
    rows: Function


def write_experts(module: Module, machine: InstructionSet, name: str, *, bfloat16: bool) -> None:
    """Writes the handler `name`.

    Results are bfloat16 or float32, hidden activations are rounded to the same.
    """
    write_products = amx.write_products if machine.has_tile_registers else tiles.write_products
    products = write_products(module, machine)
    run = write_run(module)
    gather = _write_gather(module)
    hidden = _write_hidden(module, machine, products, bfloat16=bfloat16)
    rows = _write_rows(module, machine, products, bfloat16=bfloat16)
    f = begin_handler(module, name)

    arguments = {}
    for index, argument in enumerate(ARGUMENTS):
        arguments[argument] = Buffer(f, f["frame"], CALL_ARGUMENTS, index)
    chosen = arguments["chosen"]
    gate = arguments["gate"]
    out = Buffer(f, f["frame"], CALL_RESULTS, 0)
    scratch = Buffer(f, f["frame"], CALL_RESULTS, 1)

    assignments = chosen.dimension(0) * chosen.dimension(1)
    experts = gate.dimension(0)
    scratch_rows = scratch.dimension(0) - machine.readable_rows
    sizes_bytes = (experts + 2) * 8 + (assignments * 2 + scratch_rows) * 4
    begin = f.call_external("malloc", "ptr", sizes_bytes)
    order = f.gep(begin, experts + 2, "i64")
    tokens = f.gep(order, assignments, "i32")
    numbers = f.gep(order, assignments * 2, "i32")
    row_bytes = out.dimension(1) * _number_bytes(half=bfloat16)

    def clear_row(assignment: Value) -> None:
        _clear(f, f.gep(out.data, assignment * row_bytes), row_bytes)

    _sort(f, chosen, experts, begin, order, tokens, clear_row)
    with f.loop(0, scratch_rows) as i:
        f.store(i.cast("trunc", "i32"), f.gep(numbers, i, "i32"), 4)

    shared = {
        **{name: buffer.data for name, buffer in arguments.items() if name != "chosen"},
        "hidden": scratch.data,
        "rows": out.data,
        "begin": begin,
        "order": order,
        "tokens": tokens,
        "numbers": numbers,
        "x_words": gate.dimension(2),
        "hidden_words": scratch.dimension(1),
        "columns": out.dimension(1),
    }
    stages = _Stages(run, gather, hidden, rows)
    assigned = f.load(f.gep(begin, experts, "i64"), "i64", 8)
    with f.loop(0, assigned, scratch_rows) as first:
        end = (first + scratch_rows).minimum(assigned)
        part = shared | {"first": first, "end": end, "x_ids": tokens}
        _run_stages(f, machine, stages, arguments, part)
    f.call_external("free", "void", begin)
    f.ret(f.constant(0, "ptr"))


def write_matrix(module: Module, machine: InstructionSet, name: str, *, is_table: bool) -> None:
    """Writes the handler `name`: the product of all rows of x and one matrix.

    The matrix is one expert that every row chose. Arguments: x, weight, scales. Results: the rows,
    and, for tile registers, memory for x. Results are bfloat16, or float32 of a table, whose
    weights are bfloat16, as tile registers read them (`layout.pack_table`).
    """
    write_products = amx.write_products if machine.has_tile_registers else tiles.write_products
    products = write_products(module, machine)
    run = write_run(module)
    gather = _write_gather(module)
    rows = _write_rows(module, machine, products, bfloat16=not is_table, is_table=is_table)
    f = begin_handler(module, name)

    x, weight, scales = (Buffer(f, f["frame"], CALL_ARGUMENTS, index) for index in range(3))
    out = Buffer(f, f["frame"], CALL_RESULTS, 0)
    count = x.dimension(0)
    begin = f.call_external("malloc", "ptr", count * 4 + 16)
    f.store(f.constant(0), begin, 8)
    f.store(count, f.gep(begin, 1, "i64"), 8)
    numbers = f.gep(begin, 2, "i64")
    with f.loop(0, count) as i:
        f.store(i.cast("trunc", "i32"), f.gep(numbers, i, "i32"), 4)

    division = _division(weight, scales, 2, machine)
    fields = {
        "x": x.data,
        "out": weight.data,
        "out_scales": scales.data,
        "hidden": x.data,
        "rows": out.data,
        "begin": begin,
        "order": numbers,
        "tokens": numbers,
        "numbers": numbers,
        "first": f.constant(0),
        "end": count,
        "hidden_words": x.dimension(1) // 2,
        "columns": out.dimension(1),
    } | division
    if machine.has_tile_registers:
        gathered = Buffer(f, f["frame"], CALL_RESULTS, 1)
        fields["gathered"] = gathered.data
        fields["token_words"] = fields["hidden_words"]
        fields["x_words"] = gathered.dimension(1)
        gather_tasks = count.ceil_div(GATHERED_ROWS)
        f.call(run, f["frame"], new_job(f, _CALL, gather, gather_tasks, fields))
        fields["hidden"] = gathered.data
        fields["hidden_words"] = fields["x_words"]

    job = new_job(f, _CALL, rows, division["tasks_per_expert"], fields)
    f.call(run, f["frame"], job)
    f.call_external("free", "void", begin)
    f.ret(f.constant(0, "ptr"))


def _run_stages(
    f: Function,
    machine: InstructionSet,
    stages: _Stages,
    arguments: Mapping[str, Buffer],
    part: dict[str, Value],
) -> None:
    """Writes the jobs of one part of `order`."""
    if machine.has_tile_registers:
        gathered = Buffer(f, f["frame"], CALL_RESULTS, 2)
        part |= {
            "gathered": gathered.data,
            "token_words": part["x_words"],
            "x_words": gathered.dimension(1),
        }
        tasks = (part["end"] - part["first"]).ceil_div(GATHERED_ROWS)
        f.call(stages.run, f["frame"], new_job(f, _CALL, stages.gather, tasks, part))
        part["x"] = gathered.data
        part["x_ids"] = f.gep(part["numbers"], part["first"] * -1, "i32")

    experts = arguments["gate"].dimension(0)
    for body, weight, panels_at_once in ((stages.hidden, "gate", 1), (stages.rows, "out", 2)):
        scales = arguments[f"{weight}_scales"]
        division = _division(arguments[weight], scales, panels_at_once, machine)
        tasks = experts * division["tasks_per_expert"]
        job = new_job(f, _CALL, body, tasks, part | division)
        f.call(stages.run, f["frame"], job)


def _division(
    weight: Buffer, scales: Buffer, panels_at_once: int, machine: InstructionSet
) -> dict[str, Value]:
    """Returns a stage's fields: sizes of the weights it reads, and how they are one task each."""
    panels = weight.dimension(1)
    steps = weight.dimension(2)
    groups = scales.dimension(2)
    task_bytes = steps.function.constant(TASK_BYTES)
    task_panels = task_bytes // (steps * (2 * machine.step_bytes)) * panels_at_once
    task_panels = task_panels.maximum(panels_at_once)
    return {
        "panels": panels,
        "steps": steps // groups,
        "groups": groups,
        "panels_per_task": task_panels,
        "tasks_per_expert": panels.ceil_div(task_panels),
    }


def _sort(
    f: Function,
    chosen: Buffer,
    experts: Value,
    begin: Value,
    order: Value,
    tokens: Value,
    write_unassigned: Callable[[Value], None],
) -> None:
    """Writes the sort by expert: expert e has order[begin[e]] … order[begin[e + 1] - 1].

    `write_unassigned` writes what happens to a choice that is no expert.
    """
    choices = chosen.dimension(1)
    with f.loop(0, experts + 2) as e:
        f.store(f.constant(0), f.gep(begin, e, "i64"), 8)

    def entry(e: Value, offset: int) -> Value:
        return f.gep(begin, e + offset, "i64")

    def fetch_add(address: Value, increment: Value) -> Value:
        before = f.load(address, "i64", 8)
        f.store(before + increment, address, 8)
        return before

    with f.loop(0, chosen.dimension(0) * choices) as a:  # counted two entries further …
        e = f.load(f.gep(chosen.data, a, "i32"), "i32", 4).cast("sext", "i64")
        is_expert = e.compare("ult", experts)
        with f.if_then(is_expert):
            fetch_add(entry(e, 2), f.constant(1))
        with f.if_then(is_expert.compare("eq", 0)):
            write_unassigned(a)
    with f.loop(0, experts) as e:  # … then entry e + 1 is where expert e begins …
        fetch_add(entry(e, 2), f.load(entry(e, 1), "i64", 8))
    with f.loop(0, chosen.dimension(0) * choices) as a:  # … and, once all are listed, where it ends
        e = f.load(f.gep(chosen.data, a, "i32"), "i32", 4).cast("sext", "i64")
        with f.if_then(e.compare("ult", experts)):
            place = fetch_add(entry(e, 1), f.constant(1))
            f.store(a.cast("trunc", "i32"), f.gep(order, place, "i32"), 4)
            f.store((a // choices).cast("trunc", "i32"), f.gep(tokens, place, "i32"), 4)


def _copy(f: Function, target: Value, source: Value, size: Value) -> None:
    not_volatile = f.constant(0, "i1")
    f.call_external("llvm.memcpy.p0.p0.i64", "void", target, source, size, not_volatile)


def _clear(f: Function, row: Value, size: Value) -> None:
    f.call_external(
        "llvm.memset.p0.i64", "void", row, f.constant(0, "i8"), size, f.constant(0, "i1")
    )


def _write_gather(module: Module) -> Function:
    """Writes gather(job, task): copies rows of x into the order of experts, zero to their ends."""
    f = module.function("gather", "void", {"job": "ptr", "task": "i64"})
    job = f["job"]
    first = _CALL.load(f, job, "first")
    begin = first + f["task"] * GATHERED_ROWS
    end = (begin + GATHERED_ROWS).minimum(_CALL.load(f, job, "end"))
    token_bytes = _CALL.load(f, job, "token_words") * 4
    row_bytes = _CALL.load(f, job, "x_words") * 4
    tokens = _CALL.load(f, job, "tokens", "ptr")

    with f.loop(begin, end) as place:
        token = f.load(f.gep(tokens, place, "i32"), "i32", 4).cast("sext", "i64")
        source = f.gep(_CALL.load(f, job, "x", "ptr"), token * token_bytes)
        row = f.gep(_CALL.load(f, job, "gathered", "ptr"), (place - first) * row_bytes)
        _copy(f, row, source, token_bytes)
        _clear(f, f.gep(row, token_bytes), row_bytes - token_bytes)
    f.ret()
    return f


def _write_hidden(
    module: Module, machine: InstructionSet, products: Function, *, bfloat16: bool
) -> Function:
    """Writes hidden(job, task): gelu(x · gate) × (x · value) of one expert's rows, some panels."""
    f = module.function("hidden", "void", {"job": "ptr", "task": "i64"})
    job = f["job"]
    sums = f.alloca("float", count=machine.rows * 2 * machine.panel)
    number_bytes = _number_bytes(half=machine.pairs)

    def compute(expert: Value, panel: Value, rows: _Rows, widened: tuple[Value, Value]) -> None:
        gate_panel = _panel(f, machine, job, "gate", expert, panel)
        value_panel = _panel(f, machine, job, "value", expert, panel)
        ids = f.gep(_CALL.load(f, job, "x_ids", "ptr"), rows.first, "i32")
        x = _CALL.load(f, job, "x", "ptr")
        x_words = _CALL.load(f, job, "x_words")
        groups = _CALL.load(f, job, "groups")
        steps = _CALL.load(f, job, "steps")
        weights = (*gate_panel, *value_panel)
        f.call(products, ids, rows.size, x, x_words, *weights, groups, steps, sums, *widened)

        with f.loop(0, rows.size) as i:
            words = _CALL.load(f, job, "hidden_words")
            offset = words * (rows.first + i - _CALL.load(f, job, "first")) * 4
            row = f.gep(_CALL.load(f, job, "hidden", "ptr"), offset)
            target = f.gep(row, panel * (machine.panel * number_bytes))
            for column in range(0, machine.panel, machine.lanes):
                gate = _load_sums(f, machine, sums, i, column)
                value = _load_sums(f, machine, sums, i, machine.panel + column)
                hidden = gelu(f, machine, gate) * value
                _store(f, machine, hidden, target, column, rounded=bfloat16, half=machine.pairs)
            if machine.has_tile_registers:
                is_last = (panel + 1).compare("eq", _CALL.load(f, job, "panels"))
                with f.if_then(is_last):
                    row_end = f.gep(target, machine.panel * number_bytes)
                    _clear(f, row_end, f.constant(CACHE_LINE_BYTES))

    _for_each_tile(f, machine, 1, compute)
    f.ret()
    return f


def _write_rows(
    module: Module,
    machine: InstructionSet,
    products: Function,
    *,
    bfloat16: bool,
    is_table: bool = False,
) -> Function:
    """Writes rows(job, task): hidden · out of one expert's rows, for some panels of columns.

    Two panels at a time; of a table, both as tile registers read them.
    """
    f = module.function("rows", "void", {"job": "ptr", "task": "i64"})
    job = f["job"]
    width = 2 * machine.panel
    number_bytes = _number_bytes(half=bfloat16)
    sums = f.alloca("float", count=machine.rows * width)
    result = f.alloca("float", count=width)

    def compute(expert: Value, panel: Value, rows: _Rows, widened: tuple[Value, Value]) -> None:
        last = _CALL.load(f, job, "panels") - 1  # computed twice where there is no second one
        next_panel = (panel + 1).minimum(last)
        weights = (
            *_panel(f, machine, job, "out", expert, panel),
            *_panel(f, machine, job, "out", expert, next_panel),
        )
        numbers = _CALL.load(f, job, "numbers", "ptr")
        ids = f.gep(numbers, rows.first - _CALL.load(f, job, "first"), "i32")
        if is_table:
            panel_bytes = _CALL.load(f, job, "steps") * machine.step_bytes
            table = _CALL.load(f, job, "out", "ptr")
            widened = (f.gep(table, panel * panel_bytes * 2), f.constant(1))
        x = _CALL.load(f, job, "hidden", "ptr")
        x_words = _CALL.load(f, job, "hidden_words")
        groups = _CALL.load(f, job, "groups")
        steps = _CALL.load(f, job, "steps")
        f.call(products, ids, rows.size, x, x_words, *weights, groups, steps, sums, *widened)

        columns = _CALL.load(f, job, "columns")
        begin = panel * machine.panel
        row_bytes = (columns - begin).minimum(width) * number_bytes
        with f.loop(0, rows.size) as i:
            for column in range(0, width, machine.lanes):
                total = _load_sums(f, machine, sums, i, column)
                _store(f, machine, total, result, column, rounded=bfloat16, half=bfloat16)
            order = _CALL.load(f, job, "order", "ptr")
            assignment = f.load(f.gep(order, rows.first + i, "i32"), "i32", 4).cast("sext", "i64")
            rows_address = _CALL.load(f, job, "rows", "ptr")
            target = f.gep(rows_address, (assignment * columns + begin) * number_bytes)
            _copy(f, target, result, row_bytes)

    _for_each_tile(f, machine, 2, compute)
    f.ret()
    return f


def _load_sums(f: Function, machine: InstructionSet, sums: Value, row: Value, column: int) -> Value:
    """Returns a register of the sums of a row, from a column on."""
    address = f.gep(sums, row * (2 * machine.panel) + column, "float")
    return f.load(address, machine.floats, 4)


def _for_each_tile(
    f: Function,
    machine: InstructionSet,
    panels_at_once: int,
    compute: Callable[[Value, Value, _Rows, tuple[Value, Value]], None],
) -> None:
    """Writes the loops of a task over its expert's rows and over its panels.

    Tiles have nearly equal rows; of AMX, which computes no fewer than 16, as many as fit.
    """
    job = f["job"]
    widened = f.constant(0, "ptr")
    block_rows = BLOCK_ROWS
    if machine.has_tile_registers:
        steps = _CALL.load(f, job, "steps")
        widened = amx.begin_task(f, steps, _CALL.load(f, job, "groups"))
        block_rows = AMX_BLOCK_ROWS

    tasks_per_expert = _CALL.load(f, job, "tasks_per_expert")
    expert = f["task"] // tasks_per_expert
    task_panels = _CALL.load(f, job, "panels_per_task")
    first_panel = f["task"] % tasks_per_expert * task_panels
    end_panel = (first_panel + task_panels).minimum(_CALL.load(f, job, "panels"))

    begin = _CALL.load(f, job, "begin", "ptr")
    expert_begin = f.load(f.gep(begin, expert, "i64"), "i64", 8)
    first = expert_begin.maximum(_CALL.load(f, job, "first"))
    expert_end = f.load(f.gep(begin, expert + 1, "i64"), "i64", 8)
    end = expert_end.minimum(_CALL.load(f, job, "end"))

    with f.loop(first, end, block_rows) as block:
        block_end = (block + block_rows).minimum(end)
        tile_rows = f.constant(machine.rows)
        if not machine.has_tile_registers:
            tiles_of_block = (block_end - block).ceil_div(machine.rows)
            tile_rows = (block_end - block).ceil_div(tiles_of_block)
        with (
            f.loop(first_panel, end_panel, panels_at_once) as panel,
            f.loop(block, block_end, tile_rows) as row,
        ):
            is_widened = row.compare("ne", block).cast("zext", "i64")
            rows = _Rows(row, (block_end - row).minimum(tile_rows))
            compute(expert, panel, rows, (widened, is_widened))

    if machine.has_tile_registers:
        amx.end_task(f, widened)


def _panel(
    f: Function, machine: InstructionSet, job: Value, weight: str, expert: Value, panel: Value
) -> tuple[Value, Value]:
    """Returns the addresses of a panel of an expert and of its scales."""
    groups = _CALL.load(f, job, "groups")
    number = expert * _CALL.load(f, job, "panels") + panel
    weights = _CALL.load(f, job, weight, "ptr")
    offset = number * groups * _CALL.load(f, job, "steps") * machine.step_bytes
    panel_address = f.gep(weights, offset)
    scales = _CALL.load(f, job, f"{weight}_scales", "ptr")
    return panel_address, f.gep(scales, number * groups * machine.panel, "float")


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
    """Writes a register of numbers to a row, in 16 bits (`half`) or in 32.

    `rounded`: rounded to bfloat16.
    """
    if rounded:
        bits = bfloat16_bits(machine, x)
        x = (bits >> 16).cast("trunc", vector("i16", machine.lanes)) if half else bits
    f.store(x, f.gep(row, column * _number_bytes(half=half)))


def _number_bytes(*, half: bool) -> int:
    return 2 if half else 4
