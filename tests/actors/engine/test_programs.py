"""programs.py: compilations are timed apart from steps, and the cache fits the memory."""

import threading
import time
from typing import Any

import pytest

from actors.protocol.errors import ModelError
from tests.actors.engine.engines import generate, make_engine, run


class SlowFunction:
    """A step function whose compilation waits for the test."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.entered = threading.Event()
        self.proceed = threading.Event()

    def lower(self, *args: object) -> Any:
        self.entered.set()
        assert self.proceed.wait(60)
        return self.function.lower(*args)


def test_compilation_is_reported_while_it_runs_and_not_after() -> None:
    programs = make_engine().programs
    slow = SlowFunction(programs._functions.prefill)
    programs._functions = type(programs._functions)(
        prefill=slow, decode=programs._functions.decode, score=programs._functions.score
    )
    engine = make_engine()
    engine.programs = programs
    thread = threading.Thread(target=run, args=(engine, [generate(0, [5, 6], 1)]))
    began = time.perf_counter()
    thread.start()
    assert slow.entered.wait(60)
    compiling_since = programs.compiling_since_s
    assert compiling_since is not None
    assert began <= compiling_since <= time.perf_counter()
    slow.proceed.set()
    thread.join(120)

    assert programs.compiling_since_s is None
    assert began < programs.compiled_at_s <= time.perf_counter()
    assert 0 < programs.compile_s <= programs.compiled_at_s - began
    assert programs.programs == 2, "one prefill and one decode"


def test_cache_that_holds_no_sequence_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="one sequence of max_len 100000000 does not fit"):
        make_engine(max_len=100_000_000, cache_tokens=None)
