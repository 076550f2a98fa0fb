"""Compiles the step functions of an engine in threads, from the shapes of their arguments alone.

Shapes are those of the scheduler's size buckets. A call whose own shape is not compiled runs with a
larger shape that is, its other rows and columns empty: a compilation takes longer than many such
calls. A shape that was padded often is compiled while calls go on.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import jax

from actors.engine.config import StepName
from actors.engine.planning.abstract import decode_input, pool_input, prefill_input, score_input
from actors.engine.steps import EngineContext, step_functions
from actors.protocol.errors import ModelError

MAX_THREADS = 8
# A shape is compiled in the background once padding it has cost the time of so many calls.
WASTED_CALLS = 3.0
# Attention over so many pages of 16 tokens takes as long as the rest of a model's layer.
PAGES_OF_A_ROW = 64
CACHE_HIT_EVENT = "/jax/compilation_cache/cache_hits"

Program = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ProgramShape:
    """A step function and the sizes of a data shard that it is compiled for."""

    name: StepName
    rows: int  # of score and pool: rows of the prefill whose output they read
    columns: int  # entries of a row's page table; of score: targets; of pool: 1

    @property
    def cost(self) -> int:
        """Roughly proportional to the time of a call."""
        if self.name == "score":
            return self.columns
        return self.rows * (PAGES_OF_A_ROW + self.columns)

    def holds(self, call: "ProgramShape") -> bool:
        """Returns whether a call of another shape can run with this one."""
        if self.name != call.name or self.columns < call.columns:
            return False
        if self.name in ("score", "pool"):
            return self.rows == call.rows
        return self.rows >= call.rows


@dataclass(frozen=True, slots=True)
class CompileCounts:
    """What was compiled so far."""

    requested: int = 0
    compiled: int = 0
    cached: int = 0  # of the compiled ones, read from JAX's persistent cache
    compile_s: float = 0.0  # of all programs, tracing included


class CompiledPrograms:
    """The step functions of one context, compiled once for each combination of argument shapes.

    Engines of an equal context, on parameters of the same placement, may share one.
    """

    def __init__(
        self,
        context: EngineContext,
        params: Any,
        wait_for_turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            context: model, sizes, dtype and mesh.
            params: the parameters, or their shapes with shardings.
            wait_for_turn: called in the threads before each compilation; may wait.
        """
        self.context = context
        self._wait_for_turn = wait_for_turn
        self._params = abstract_tree(params)
        specs = jax.tree.map(lambda array: array.sharding.spec, params)
        self._functions = step_functions(context, specs)
        self._compiled: dict[tuple[Any, ...], Program] = {}
        self._requested: dict[ProgramShape, Future[Program]] = {}
        self._wasted_calls: defaultdict[ProgramShape, float] = defaultdict(float)
        self._counts = CompileCounts()
        self._changed = threading.Lock()
        self._tracing = threading.Lock()
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compile")

    # -- by arguments ------------------------------------------------------------------------------

    def find(self, name: str, args: Sequence[Any]) -> Program | None:
        """Returns the program for the shapes of `args`, None where it is not compiled."""
        return self._compiled.get(_key(name, args))

    def compile(self, name: str, params: Any, args: Sequence[Any]) -> Program:
        """Compiles a step function for the shapes of `args` and keeps it.

        Raises:
            ModelError: XLA or a kernel refuses the program.
        """
        began_s = time.perf_counter()
        options = self.context.platform.compiler_options(self.context.dtype)
        with CacheHits() as hits:
            try:
                with self._tracing:
                    lowered = getattr(self._functions, name).lower(params, *args)
                program: Program = lowered.compile(compiler_options=options)
            # of JAX, XLA, Triton and LLVM, whatever their type
            except Exception as error:
                shapes = [leaf.shape for leaf in jax.tree.leaves(args[-1])]
                raise ModelError(
                    f"{name} cannot be compiled for arguments of shapes {shapes[:4]}: "
                    f"{type(error).__name__}: {error}"
                ) from error

        self._compiled[_key(name, args)] = program
        with self._changed:
            self._counts = replace(
                self._counts,
                compiled=self._counts.compiled + 1,
                cached=self._counts.cached + (hits.count > 0),
                compile_s=self._counts.compile_s + time.perf_counter() - began_s,
            )
        return program

    # -- by shape, in threads ----------------------------------------------------------------------

    def request(self, shape: ProgramShape, cache: Any) -> "Future[Program]":
        """Compiles a shape in a thread, unless that was requested before.

        Requests are taken in order: they are traced one after the other, as that is Python, and
        compiled side by side.

        Args:
            shape: of the call.
            cache: the engine's cache, or its shapes.
        """
        with self._changed:
            future = self._requested.get(shape)
            if future is None:
                args = self._arguments(shape, cache)
                future = self._threads.submit(self._compile_in_turn, shape.name, args)
                self._requested[shape] = future
                self._counts = replace(self._counts, requested=self._counts.requested + 1)
        return future

    def _compile_in_turn(self, name: StepName, args: tuple[Any, ...]) -> Program:
        self._wait_for_turn()
        return self.compile(name, self._params, args)

    def wait(self) -> None:
        """Returns when all programs that were requested are compiled, or could not be."""
        wait(list(self._requested.values()))

    def is_compiled(self, shape: ProgramShape) -> bool:
        """Returns whether a requested shape is compiled, or could not be."""
        future = self._requested.get(shape)
        return future is not None and future.done()

    def choose(self, shape: ProgramShape) -> ProgramShape:
        """Returns the shape to run a call of `shape` with.

        The smallest compiled one that holds it; else the one that was requested first; where none
        holds it, `shape` itself, which is to be requested.
        """
        holding = [candidate for candidate in list(self._requested) if candidate.holds(shape)]
        compiled = [candidate for candidate in holding if self.is_compiled(candidate)]
        if compiled:
            return min(compiled, key=lambda candidate: candidate.cost)
        if holding:
            return holding[0]
        return shape

    def wastes(self, shape: ProgramShape, padded: ProgramShape) -> bool:
        """Counts a call of `shape` that runs as `padded`; returns whether it is worth compiling."""
        with self._changed:
            self._wasted_calls[shape] += 1 - shape.cost / padded.cost
            return self._wasted_calls[shape] >= WASTED_CALLS

    def counts(self) -> CompileCounts:
        """Returns what was requested and compiled so far."""
        return self._counts

    def close(self) -> None:
        """Drops what is not being compiled yet, and waits for the rest: XLA cannot be stopped."""
        self._threads.shutdown(cancel_futures=True)

    def _arguments(self, shape: ProgramShape, cache: Any) -> tuple[Any, ...]:
        if shape.name == "prefill":
            step = prefill_input(self.context, shape.rows, shape.columns)
            return abstract_tree(cache), step
        if shape.name == "decode":
            state = decode_input(self.context, shape.rows, shape.columns)
            return abstract_tree(cache), state
        if shape.name == "pool":
            return pool_input(self.context, shape.rows)
        return score_input(self.context, shape.rows, shape.columns)


class CacheHits:
    """Counts the programs that this thread reads from JAX's persistent cache in a with block."""

    def __init__(self) -> None:
        self.count = 0
        self._thread = threading.get_ident()

    def __enter__(self) -> "CacheHits":
        jax.monitoring.register_event_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._listen)

    def _listen(self, event: str, **_: object) -> None:
        # JAX calls listeners in the thread of the event.
        if event == CACHE_HIT_EVENT and threading.get_ident() == self._thread:
            self.count += 1


def abstract_tree(tree: Any) -> Any:
    """Returns the shapes, types and shardings of a tree of arrays."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def _key(name: str, args: Sequence[Any]) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(args)
    return (name, structure, *(leaf.shape for leaf in leaves))
