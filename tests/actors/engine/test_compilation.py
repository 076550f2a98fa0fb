"""compilation.py: programs from shapes alone, in threads; calls are padded to what is compiled."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import pytest

from actors.engine.compilation import (
    WASTED_CALLS,
    CacheHits,
    CompiledPrograms,
    ProgramShape,
    abstract_tree,
)
from actors.engine.engine import Engine
from actors.engine.packing import PackedRows
from actors.protocol.errors import ModelError
from tests.actors.engine.engines import make_engine

SMALL = ProgramShape("decode", 8, 8)
WIDE = ProgramShape("decode", 8, 32)
LARGE = ProgramShape("decode", 64, 32)


class FakePrograms(CompiledPrograms):
    """Programs whose compilation lasts until the test ends it, and leads to nothing."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.context, engine.programs.params)
        self.order: list[tuple[int, ...]] = []
        self.proceed = threading.Event()
        self.error: Exception | None = None

    def compile(self, name: str, params: Any, args: Sequence[Any]) -> Callable[..., Any]:
        assert self.proceed.wait(60)
        if self.error is not None:
            raise self.error
        shapes = [leaf.shape for leaf in jax.tree.leaves((params, args))]
        assert shapes, "shapes of parameters and arguments, nothing else"
        call = jax.eval_shape(PackedRows.unpack, args[1])
        self.order.append(call.pages.shape)
        return lambda *_: None


@pytest.fixture
def engine() -> Engine:
    return make_engine()


@pytest.fixture
def programs(engine: Engine) -> CompiledPrograms:
    return FakePrograms(engine)


@pytest.mark.parametrize(
    ("shape", "other", "expected"),
    [
        (LARGE, SMALL, True),
        (LARGE, LARGE, True),
        (WIDE, ProgramShape("decode", 16, 8), False),
        (SMALL, WIDE, False),
        (LARGE, ProgramShape("prefill", 8, 8), False),
        (ProgramShape("score", 8, 64), ProgramShape("score", 8, 16), True),
        (ProgramShape("score", 64, 64), ProgramShape("score", 8, 16), False),
    ],
)
def test_larger_shapes_hold_smaller_calls_of_the_same_step(
    shape: ProgramShape, other: ProgramShape, expected: bool
) -> None:
    assert shape.holds(other) == expected


def test_call_takes_the_smallest_compiled_shape_that_holds_it(
    engine: Engine, programs: FakePrograms
) -> None:
    assert programs.choose(SMALL) == SMALL, "nothing is requested: it is compiled"
    futures = [programs.request(shape, engine.programs.cache) for shape in (LARGE, WIDE)]
    assert programs.choose(SMALL) == LARGE, "the first one that is ready"
    programs.proceed.set()
    for future in futures:
        future.result(60)
    assert programs.choose(SMALL) == WIDE
    assert programs.choose(ProgramShape("decode", 16, 16)) == LARGE
    beyond = ProgramShape("decode", 128, 8)
    assert programs.choose(beyond) == beyond
    assert programs.is_compiled(WIDE)
    assert not programs.is_compiled(SMALL)
    programs.close()


def test_shape_is_requested_once(engine: Engine, programs: FakePrograms) -> None:
    programs.proceed.set()
    first = programs.request(SMALL, engine.programs.cache)
    assert programs.request(SMALL, engine.programs.cache) is first
    first.result(60)
    programs.close()
    assert programs.order == [(8, 8)]
    assert programs.counts().requested == 1


def test_shape_that_is_padded_often_is_compiled(engine: Engine, programs: FakePrograms) -> None:
    engine.programs._compiled = programs
    programs.proceed.set()
    programs.request(LARGE, engine.programs.cache).result(60)
    waste_of_a_call = 1 - SMALL.cost / LARGE.cost
    calls = 0
    while programs.counts().requested == 1:
        assert engine.programs.choose(SMALL) == LARGE
        calls += 1
    assert calls == -(-WASTED_CALLS // waste_of_a_call)
    programs.close()
    assert engine.programs.choose(SMALL) == SMALL


def test_error_of_a_compilation_reaches_the_call(engine: Engine, programs: FakePrograms) -> None:
    engine.programs._compiled = programs
    programs.error = ModelError("decode cannot be compiled")
    programs.proceed.set()
    with pytest.raises(ModelError, match="decode cannot be compiled"):
        engine.programs.prepare(SMALL)


def test_program_that_jax_refuses_is_a_model_error(engine: Engine) -> None:
    compiled = CompiledPrograms(engine.context, engine.programs.params)
    with pytest.raises(ModelError, match="score cannot be compiled for arguments of shapes"):
        compiled.compile("score", engine.programs.params, [jax.ShapeDtypeStruct((3,), "int32")])


def test_close_drops_what_waits(engine: Engine, programs: FakePrograms) -> None:
    for rows in range(1, 60):
        programs.request(ProgramShape("decode", rows, 8), engine.programs.cache)
    threading.Timer(0.01, programs.proceed.set).start()
    programs.close()
    assert len(programs.order) < 59


def test_cache_hits_are_those_of_this_thread() -> None:
    with CacheHits() as hits:
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
        other = threading.Thread(
            target=jax.monitoring.record_event, args=("/jax/compilation_cache/cache_hits",)
        )
        other.start()
        other.join()
        jax.monitoring.record_event("/jax/compilation_cache/cache_misses")
    jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
    assert hits.count == 1


def test_abstract_tree_has_shapes_types_and_shardings(engine: Engine) -> None:
    tree = abstract_tree(engine.programs.cache)
    for abstract, array in zip(
        jax.tree.leaves(tree), jax.tree.leaves(engine.programs.cache), strict=True
    ):
        assert (abstract.shape, abstract.dtype) == (array.shape, array.dtype)
        assert abstract.sharding == array.sharding
