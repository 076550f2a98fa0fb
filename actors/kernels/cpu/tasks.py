"""A call of XLA's foreign function interface in machine code, its work divided over XLA's threads.

Writes functions that read a call's buffers and that run numbered tasks on all threads of the pool
that XLA computes with. Offsets are those of `xla/ffi/api/c_api.h` (API 0.3), which ships with
jaxlib.

    caller   ── schedule ──┬── take a task ── take a task ── … none left ── wait ── return
    helper                 └──── take a task ── take a task ── … none left ── leave

The caller takes tasks as the helpers do, so it never waits for a helper that has not begun: with a
busy pool, or none, it does all of them itself. The last one to leave frees the job; helpers may
come late, when the call is long over.
"""

from collections.abc import Mapping

from actors.kernels.cpu.llvm_text import Function, Module, Value

API_VERSION = (0, 3)
EXECUTE = 3  # the stage of a call that computes
METADATA = 1  # the extension of a call that requests the version

# Byte offsets in XLA_FFI_CallFrame …
CALL_EXTENSION = 8
CALL_API = 16
CALL_CONTEXT = 24
CALL_STAGE = 32
CALL_ARGUMENTS = 72
CALL_RESULTS = 112
# … in XLA_FFI_Api …
API_ERROR_DESTROY = 64
API_SCHEDULE = 136
API_NUM_THREADS = 144
# … in XLA_FFI_Buffer …
BUFFER_DATA = 24
BUFFER_DIMENSIONS = 40
# … and in XLA_FFI_Extension_Base and XLA_FFI_Metadata_Extension.
EXTENSION_TYPE = 8
EXTENSION_METADATA = 24
METADATA_MAJOR = 24
METADATA_MINOR = 28
METADATA_TRAITS = 32

# fields of 8 bytes each; what tasks need follows them
JOB = ("body", "tasks", "next", "done", "users")


class Struct:
    """Fields of 8 bytes, by name."""

    def __init__(self, *names: str) -> None:
        self._at = {name: 8 * index for index, name in enumerate(names)}
        self.size = 8 * len(names)

    def address(self, f: Function, base: Value, name: str) -> Value:
        """Returns the address of a field."""
        return f.gep(base, self._at[name])

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
        buffers = f.load(f.gep(frame, side), "ptr", 8)
        self._buffer = f.load(f.gep(buffers, index, "ptr"), "ptr", 8)
        self.data = f.load(f.gep(self._buffer, BUFFER_DATA), "ptr", 8)

    def dimension(self, axis: int) -> Value:
        """Returns the length of an axis."""
        f = self._function
        dimensions = f.load(f.gep(self._buffer, BUFFER_DIMENSIONS), "ptr", 8)
        return f.load(f.gep(dimensions, axis, "i64"), "i64", 8)


def begin_handler(module: Module, name: str) -> Function:
    """Begins name(frame), the function that XLA calls.

    The code returns the API version if XLA requests it, and continues for a computation.
    """
    f = module.function(name, "ptr", {"frame": "ptr"}, exported=True)
    success = f.constant(0, "ptr")
    extension = f.load(f.gep(f["frame"], CALL_EXTENSION), "ptr", 8)
    with f.if_then(extension.compare("ne", f.constant(0, "ptr")), returns=True):
        extension_type = f.load(f.gep(extension, EXTENSION_TYPE), "i32", 4)
        with f.if_then(extension_type.compare("eq", METADATA)):
            metadata = f.load(f.gep(extension, EXTENSION_METADATA), "ptr", 8)
            major, minor = API_VERSION
            f.store(f.constant(major, "i32"), f.gep(metadata, METADATA_MAJOR), 4)
            f.store(f.constant(minor, "i32"), f.gep(metadata, METADATA_MINOR), 4)
            f.store(f.constant(0, "i32"), f.gep(metadata, METADATA_TRAITS), 4)
        f.ret(success)
    stage = f.load(f.gep(f["frame"], CALL_STAGE), "i32", 4)
    with f.if_then(stage.compare("ne", EXECUTE), returns=True):
        f.ret(success)
    return f


def write_run(module: Module) -> Function:
    """Writes run(frame, job): calls body(job, task) for every task of the job, on all threads.

    It returns when all are done. A job comes from `new_job` and is freed afterwards.
    """
    leave = _write_leave(module)
    work = _write_work(module)
    helper = module.function("helper", "void", {"job": "ptr"})
    helper.call(work, helper["job"])
    helper.call(leave, helper["job"])
    helper.ret()

    f = module.function("run", "void", {"frame": "ptr", "job": "ptr"})
    api = f.load(f.gep(f["frame"], CALL_API), "ptr", 8)
    context = f.load(f.gep(f["frame"], CALL_CONTEXT), "ptr", 8)
    job = f["job"]
    tasks = _JOB.load(f, job, "tasks")
    threads = _threads(f, api, context)
    helpers = (threads.minimum(tasks) - 1).maximum(0)
    _JOB.store(f, job, {"users": helpers + 1})
    request = _arguments(f, context, helper.address, job)
    with f.loop(0, helpers), f.if_then(_failed(f, api, API_SCHEDULE, request)):
        f.call(leave, job)
    f.call(work, job)
    with f.repeat() as over:
        done_address = _JOB.address(f, job, "done")
        done = f.emit("i64", f"load atomic i64, ptr {done_address.name} acquire, align 8")
        f.break_if(done.compare("sge", tasks), over)
        f.call_external("sched_yield", "i32")
    f.call(leave, job)
    f.ret()
    return f


def new_job(
    f: Function, struct: Struct, body: Function, tasks: Value, fields: Mapping[str, Value]
) -> Value:
    """Returns the address of a new job; `struct` has the fields JOB and those of `fields`."""
    job = f.call_external("malloc", "ptr", f.constant(struct.size))
    start = {"body": body.address, "tasks": tasks, "next": f.constant(0), "done": f.constant(0)}
    struct.store(f, job, start | dict(fields))
    return job


def _write_work(module: Module) -> Function:
    """Writes work(job): takes tasks until none is left."""
    f = module.function("work", "void", {"job": "ptr"})
    job = f["job"]
    tasks = _JOB.load(f, job, "tasks")
    body = _JOB.load(f, job, "body", "ptr")
    with f.repeat() as over:
        next_task = _JOB.address(f, job, "next")
        task = f.emit("i64", f"atomicrmw add ptr {next_task.name}, i64 1 monotonic")
        f.break_if(task.compare("sge", tasks), over)
        f.call_indirect(body, "void", job, task)
        done = _JOB.address(f, job, "done")
        f.emit("i64", f"atomicrmw add ptr {done.name}, i64 1 release")
    f.ret()
    return f


def _write_leave(module: Module) -> Function:
    """Writes leave(job): the last of its users frees it."""
    f = module.function("leave", "void", {"job": "ptr"})
    users_address = _JOB.address(f, f["job"], "users")
    users = f.emit("i64", f"atomicrmw sub ptr {users_address.name}, i64 1 acq_rel")
    with f.if_then(users.compare("eq", 1)):
        f.call_external("free", "void", f["job"])
    f.ret()
    return f


def _threads(f: Function, api: Value, context: Value) -> Value:
    """Returns the number of threads of the pool; 1 without a pool."""
    threads = f.alloca("i64", 1)
    request = _arguments(f, context, threads)
    with f.if_then(_failed(f, api, API_NUM_THREADS, request)):
        f.store(f.constant(1), threads, 8)
    return f.load(threads, "i64", 8)


def _arguments(f: Function, *fields: Value) -> Value:
    """Returns the address of a struct for XLA's functions: its size, no extension, `fields`."""
    words = [f.constant(8 * (2 + len(fields))), f.constant(0), *fields]
    struct = f.alloca("i64", count=len(words))
    for index, word in enumerate(words):
        f.store(word, f.gep(struct, index, "i64"), 8)
    return struct


def _failed(f: Function, api: Value, function: int, arguments: Value) -> Value:
    """Calls a function of XLA's API and returns whether it failed.

    Its error is destroyed: the caller does the work itself instead.
    """
    error = f.call_indirect(f.load(f.gep(api, function), "ptr", 8), "ptr", arguments)
    failed = error.compare("ne", f.constant(0, "ptr"))
    with f.if_then(failed):
        destroy = f.load(f.gep(api, API_ERROR_DESTROY), "ptr", 8)
        f.call_indirect(destroy, "void", _arguments(f, error))
    return failed
