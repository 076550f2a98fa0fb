"""tasks.py: each task of a job runs once for any pool of threads; handlers report the version.

A fake of XLA's API stands for its pool of threads.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from actors.kernels.cpu import tasks
from actors.kernels.cpu.llvm_text import Module
from actors.kernels.cpu.tasks import JOB, Struct, begin_handler, new_job, write_run
from tests.actors.kernels.cpu.test_llvm_text import compile_module

TASKS = 100
API_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
HELPER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
ERROR = 1  # any address but 0


class FakeXla:
    """The API of XLA that a call gets: a pool of `threads`, of which some requests fail.

    Args:
        threads: size of the pool; None: the request for it fails.
        is_busy: requests to schedule a helper fail.
    """

    def __init__(self, threads: int | None, *, is_busy: bool = False) -> None:
        self._threads = threads
        self._is_busy = is_busy
        self.helpers: list[threading.Thread] = []
        self.destroyed_errors = 0
        self._callbacks = {
            tasks.API_ERROR_DESTROY: API_FUNCTION(self._destroy),
            tasks.API_SCHEDULE: API_FUNCTION(self._schedule),
            tasks.API_NUM_THREADS: API_FUNCTION(self._num_threads),
        }
        self._api = (ctypes.c_uint64 * 32)()
        for offset, callback in self._callbacks.items():
            self._api[offset // 8] = ctypes.cast(callback, ctypes.c_void_p).value or 0

    def call_frame(self) -> Any:
        """Returns a call frame with this API; keep it while the call runs."""
        frame = (ctypes.c_uint64 * 16)()
        frame[tasks.CALL_API // 8] = ctypes.addressof(self._api)
        return frame

    def _destroy(self, _arguments: int) -> int:
        self.destroyed_errors += 1
        return 0

    def _schedule(self, arguments: int) -> int:
        if self._is_busy:
            return ERROR
        words = (ctypes.c_uint64 * 5).from_address(arguments)
        helper = threading.Thread(target=HELPER(words[3]), args=(words[4],))
        self.helpers.append(helper)
        helper.start()
        return 0

    def _num_threads(self, arguments: int) -> int:
        if self._threads is None:
            return ERROR
        words = (ctypes.c_uint64 * 4).from_address(arguments)
        ctypes.c_int64.from_address(words[3]).value = self._threads
        return 0


@pytest.fixture(scope="module")
def engine() -> llvm.ExecutionEngine:
    """Returns compiled code that counts how often each task runs."""
    struct = Struct(*JOB, "counts")
    module = Module()
    run = write_run(module)

    body = module.function("count", "void", {"job": "ptr", "task": "i64"})
    counts = struct.load(body, body["job"], "counts", "ptr")
    count_address = body.gep(counts, body["task"], "i64")
    body.store(body.load(count_address, "i64", 8) + 1, count_address, 8)
    body.ret()

    parameters = {"frame": "ptr", "counts": "ptr", "tasks": "i64"}
    f = module.function("count_all", "void", parameters, exported=True)
    f.call(run, f["frame"], new_job(f, struct, body, f["tasks"], {"counts": f["counts"]}))
    f.ret()

    handler = begin_handler(module, "handler")
    buffer_sum = tasks.Buffer(handler, handler["frame"], tasks.CALL_ARGUMENTS, 1).dimension(2)
    handler.store(buffer_sum, handler.load(handler.gep(handler["frame"], 120), "ptr", 8), 8)
    handler.ret(handler.constant(0, "ptr"))
    return compile_module(module)


@pytest.fixture
def count_all(engine: llvm.ExecutionEngine) -> Callable[[FakeXla, int], list[int]]:
    """Returns the function that runs a job and returns how often each task ran."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        engine.get_function_address("count_all")
    )

    def call(xla: FakeXla, number: int) -> list[int]:
        counts = np.zeros(max(number, 1), np.int64)
        frame = xla.call_frame()
        function(ctypes.addressof(frame), counts.ctypes.data, number)
        for helper in xla.helpers:
            helper.join()
        return counts[:number].tolist()

    return call


@pytest.mark.parametrize(
    ("threads", "is_busy", "helpers", "errors"),
    [(1, False, 0, 0), (4, False, 3, 0), (4, True, 0, 3), (None, False, 0, 1)],
    ids=["one thread", "four threads", "busy pool", "no pool"],
)
def test_every_task_of_a_job_runs_once(
    threads: int | None,
    is_busy: bool,
    helpers: int,
    errors: int,
    count_all: Callable[[FakeXla, int], list[int]],
) -> None:
    xla = FakeXla(threads, is_busy=is_busy)
    assert count_all(xla, TASKS) == [1] * TASKS
    assert (len(xla.helpers), xla.destroyed_errors) == (helpers, errors)


def test_job_requests_no_more_helpers_than_it_has_tasks(
    count_all: Callable[[FakeXla, int], list[int]],
) -> None:
    few = FakeXla(8)
    assert count_all(few, 3) == [1, 1, 1]
    assert len(few.helpers) == 2
    none = FakeXla(8)
    assert count_all(none, 0) == []
    assert none.helpers == []


def test_handler_returns_the_api_version_on_request(engine: llvm.ExecutionEngine) -> None:
    handler = API_FUNCTION(engine.get_function_address("handler"))
    metadata = (ctypes.c_uint32 * 16)(*[7] * 16)
    extension = (ctypes.c_uint64 * 8)()
    extension[tasks.EXTENSION_TYPE // 8] = tasks.METADATA
    extension[tasks.EXTENSION_METADATA // 8] = ctypes.addressof(metadata)
    frame = (ctypes.c_uint64 * 16)()
    frame[tasks.CALL_EXTENSION // 8] = ctypes.addressof(extension)
    assert handler(ctypes.addressof(frame)) is None
    major, minor = (
        metadata[offset // 4] for offset in (tasks.METADATA_MAJOR, tasks.METADATA_MINOR)
    )
    assert (major, minor) == tasks.API_VERSION
    assert metadata[tasks.METADATA_TRAITS // 4] == 0


def test_handler_reads_dimensions_in_the_stage_that_computes(
    engine: llvm.ExecutionEngine,
) -> None:
    handler = API_FUNCTION(engine.get_function_address("handler"))
    dimensions = (ctypes.c_int64 * 3)(5, 6, 41)
    buffer = (ctypes.c_uint64 * 8)()
    buffer[tasks.BUFFER_DIMENSIONS // 8] = ctypes.addressof(dimensions)
    buffers = (ctypes.c_uint64 * 2)(0, ctypes.addressof(buffer))
    result = ctypes.c_int64(0)
    frame = (ctypes.c_uint64 * 16)()
    frame[tasks.CALL_ARGUMENTS // 8] = ctypes.addressof(buffers)
    frame[120 // 8] = ctypes.addressof(result)
    for stage, expected in ((tasks.EXECUTE - 1, 0), (tasks.EXECUTE, 41)):
        frame[tasks.CALL_STAGE // 8] = stage
        assert handler(ctypes.addressof(frame)) is None
        assert result.value == expected
