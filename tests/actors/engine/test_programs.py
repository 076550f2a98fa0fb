"""programs.py: compilations are timed apart from steps, and the cache fits the memory."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.engine.compilation import CompiledPrograms
from actors.engine.engine import Engine
from actors.protocol.errors import ModelError
from tests.actors.engine.engines import generate, make_engine, run


class SlowPrograms(CompiledPrograms):
    """Programs whose compilation waits for the test."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.context, engine.programs.params)
        self.entered = threading.Event()
        self.proceed = threading.Event()

    def compile(self, name: str, params: Any, args: Sequence[Any]) -> Callable[..., Any]:
        self.entered.set()
        assert self.proceed.wait(60)
        return super().compile(name, params, args)


def test_compilation_is_reported_while_it_runs_and_not_after() -> None:
    shared = make_engine()
    slow = SlowPrograms(shared)
    engine = Engine(shared.context, shared.programs.params, compiled=slow)
    programs = engine.programs
    thread = threading.Thread(target=run, args=(engine, [generate(0, [5, 6], 1)]))
    began_s = time.perf_counter()
    thread.start()
    assert slow.entered.wait(60)
    compiling_since_s = programs.compiling_since_s
    assert compiling_since_s is not None
    assert began_s <= compiling_since_s <= time.perf_counter()
    slow.proceed.set()
    thread.join(120)

    assert programs.compiling_since_s is None
    assert began_s < programs.compiled_at_s <= time.perf_counter()
    assert 0 < programs.compile_s <= programs.compiled_at_s - began_s
    assert programs.programs == 2, "one prefill and one decode"
    stats = engine.stats()
    assert 0 < stats.prefill_s + stats.decode_s <= stats.busy_s
    assert stats.busy_s + stats.compile_s <= stats.up_s, "compilation is not counted as busy"


def test_cache_that_holds_no_sequence_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="one sequence of max_len 100000000 does not fit"):
        make_engine(max_len=100_000_000, cache_tokens=None, share_programs=False)
