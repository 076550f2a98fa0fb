"""A call of XLA's foreign function interface, in machine code: its arguments, and its work divided over XLA's own threads.

Input: a module to write to. Output: in it, functions that read a call's buffers and that run
numbered tasks on all threads of the pool XLA computes with. Offsets are those of
`xla/ffi/api/c_api.h` (API 0.3), which ships with jaxlib. Knows nothing of what tasks do.

    caller   ── schedule ──┬── take a task ── take a task ── … none left ── wait for tasks in progress ── go on
    helper                 └──── take a task ── take a task ── … none left ── leave

The caller takes tasks like everybody else, so it never waits for a helper that has not begun: with
a busy pool, or none, it does all of them itself. Whoever leaves last frees the job; helpers may
come late, when the call is long over.
"""

from collections.abc import Mapping

from actors.kernels.cpu.llvm_text import Function, Module, Value

API_VERSION = (0, 3)
EXECUTE = 3  # the stage of a call that computes
METADATA = 1  # the extension of a call that asks for the version
# byte offsets in XLA_FFI_CallFrame, XLA_FFI_Api and XLA_FFI_Buffer
EXTENSION, API, CONTEXT, STAGE, ARGUMENTS, RESULTS = 8, 16, 24, 32, 72, 112
ERROR_DESTROY, SCHEDULE, NUM_THREADS = 64, 136, 144
BUFFER_DATA, BUFFER_DIMENSIONS = 24, 40

# fields of 8 bytes each; what tasks need follows them
JOB = ("body", "tasks", "taken", "done", "users")


class Struct:
    """Fields of 8 bytes, by name."""

    def __init__(self, *names: str) -> None:
        self._at = {name: 8 * index for index, name in enumerate(names)}
        self.size = 8 * len(names)

    def address(self, f: Function, base: Value, name: str) -> Value:
        """Returns where a field lies."""
        return f.at(base, self._at[name])

    def load(self, f: Function, base: Value, name: str, type_: str = "i64") -> Value:
        """Returns a field."""
        return f.load(self.address(f, base, name), type_, 8)

    def store(self, f: Function, base: Value, fields: Mapping[str, Value]) -> None:
        """Writes fields."""
        for name, value in fields.items():
            f.store(value, self.address(f, base, name), 8)


_JOB = Struct(*JOB)


class Buffer:
    """An argument or a result of a call."""

    def __init__(self, f: Function, frame: Value, side: int, index: int) -> None:
        self._function = f
        self._buffer = f.load(f.at(f.load(f.at(frame, side), "ptr", 8), index, "ptr"), "ptr", 8)
        self.data = f.load(f.at(self._buffer, BUFFER_DATA), "ptr", 8)

    def dimension(self, axis: int) -> Value:
        """Returns the length of an axis."""
        dimensions = self._function.load(
            self._function.at(self._buffer, BUFFER_DIMENSIONS), "ptr", 8
        )
        return self._function.load(self._function.at(dimensions, axis, "i64"), "i64", 8)


def begin_handler(module: Module, name: str) -> Function:
    """Begins name(frame), the function that XLA calls: answers what is no call but a question, and goes on with what is one."""
    f = module.function(name, "ptr", {"frame": "ptr"}, exported=True)
    success = f.number(0, "ptr")
    extension = f.load(f.at(f["frame"], EXTENSION), "ptr", 8)
    with f.when(extension.compared("ne", f.number(0, "ptr")), returns=True):
        with f.when(f.load(f.at(extension, 8), "i32", 4).compared("eq", METADATA)):
            metadata = f.load(f.at(extension, 24), "ptr", 8)
            # version, traits
            for offset, number in ((24, API_VERSION[0]), (28, API_VERSION[1]), (32, 0)):
                f.store(f.number(number, "i32"), f.at(metadata, offset), 4)
        f.give(success)
    with f.when(f.load(f.at(f["frame"], STAGE), "i32", 4).compared("ne", EXECUTE), returns=True):
        f.give(success)
    return f


def write_run(module: Module) -> Function:
    """Writes run(frame, job): calls body(job, task) for every task of the job, on all threads.

    Returns when all are done.

    A job comes from `new_job` and is gone afterwards.
    """
    leave, work = _write_leave(module), _write_work(module)
    helper = module.function("helper", "void", {"job": "ptr"})
    helper.call(work, helper["job"])
    helper.call(leave, helper["job"])
    helper.give()

    f = module.function("run", "void", {"frame": "ptr", "job": "ptr"})
    api, context = (f.load(f.at(f["frame"], offset), "ptr", 8) for offset in (API, CONTEXT))
    job, tasks = f["job"], _JOB.load(f, f["job"], "tasks")
    helpers = (_threads(f, api, context).at_most(tasks) - 1).at_least(0)
    _JOB.store(f, job, {"users": helpers + 1})
    request = _arguments(f, context, helper.address, job)
    with f.loop(0, helpers), f.when(_failed(f, api, SCHEDULE, request)):
        f.call(leave, job)
    f.call(work, job)
    with f.repeat() as over:
        done = f.emit(
            "i64", f"load atomic i64, ptr {_JOB.address(f, job, 'done').name} acquire, align 8"
        )
        f.leave_if(done.compared("sge", tasks), over)
        f.call_named("sched_yield", "i32")
    f.call(leave, job)
    f.give()
    return f


def new_job(
    f: Function, struct: Struct, body: Function, tasks: Value, fields: Mapping[str, Value]
) -> Value:
    """Returns the address of a new job; `struct` has the fields JOB and those given."""
    job = f.call_named("malloc", "ptr", f.number(struct.size))
    start = {"body": body.address, "tasks": tasks, "taken": f.number(0), "done": f.number(0)}
    struct.store(f, job, start | dict(fields))
    return job


def _write_work(module: Module) -> Function:
    """Writes work(job): takes tasks until none is left."""
    f = module.function("work", "void", {"job": "ptr"})
    job = f["job"]
    tasks, body = _JOB.load(f, job, "tasks"), _JOB.load(f, job, "body", "ptr")
    with f.repeat() as over:
        task = f.emit(
            "i64", f"atomicrmw add ptr {_JOB.address(f, job, 'taken').name}, i64 1 monotonic"
        )
        f.leave_if(task.compared("sge", tasks), over)
        f.call_address(body, "void", job, task)
        f.emit("i64", f"atomicrmw add ptr {_JOB.address(f, job, 'done').name}, i64 1 release")
    f.give()
    return f


def _write_leave(module: Module) -> Function:
    """Writes leave(job): the last of its users frees it."""
    f = module.function("leave", "void", {"job": "ptr"})
    users = f.emit(
        "i64", f"atomicrmw sub ptr {_JOB.address(f, f['job'], 'users').name}, i64 1 acq_rel"
    )
    with f.when(users.compared("eq", 1)):
        f.call_named("free", "void", f["job"])
    f.give()
    return f


def _threads(f: Function, api: Value, context: Value) -> Value:
    """Returns how many threads the pool has; 1 when there is none."""
    threads = f.local("i64", 1)
    with f.when(_failed(f, api, NUM_THREADS, _arguments(f, context, threads))):
        f.store(f.number(1), threads, 8)
    return f.load(threads, "i64", 8)


def _arguments(f: Function, *fields: Value) -> Value:
    """Returns the address of a struct as XLA's functions take it: its size, no extension, `fields`."""
    words = [f.number(8 * (2 + len(fields))), f.number(0), *fields]
    struct = f.local("i64", count=len(words))
    for index, word in enumerate(words):
        f.store(word, f.at(struct, index, "i64"), 8)
    return struct


def _failed(f: Function, api: Value, function: int, arguments: Value) -> Value:
    """Calls a function of XLA's API.

    Returns whether it failed. Its error is destroyed: the caller knows what to do instead.
    """
    error = f.call_address(f.load(f.at(api, function), "ptr", 8), "ptr", arguments)
    failed = error.compared("ne", f.number(0, "ptr"))
    with f.when(failed):
        f.call_address(f.load(f.at(api, ERROR_DESTROY), "ptr", 8), "void", _arguments(f, error))
    return failed
