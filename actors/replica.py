"""One replica: a device mesh with the sharded model, and the thread that runs its engine.

Batches in, results out. `run` may be called from several threads at once: their requests share the
engine, so that the tail of one batch overlaps with the next. JAX is imported inside `__init__`
only, after Ray has chosen the visible devices. The class does not depend on Ray, which wraps it.
"""

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from actors.compile_cache import CompileCache, compile_cache, configure_jax
from actors.engine.config import EngineConfig, StepName
from actors.model.config import ModelConfig
from actors.protocol.errors import ReplicaError, RequestError
from actors.protocol.events import Heartbeat
from actors.protocol.messages import (
    Batch,
    BatchResult,
    Completion,
    ReplicaInfo,
    ReplicaStats,
    Request,
    RowRef,
)
from actors.protocol.version import VERSION

LIBRARIES = ("jax", "jaxlib", "numpy")  # that compute results
# More than compiling all programs of Grok-1 takes, on a slow machine.
TURN_TIMEOUT_S = 900.0
# Batches that a driver sends at once arrive within milliseconds, on a busy machine within tenths of
# a second.
FIRST_BATCHES_APART_S = 0.3

if TYPE_CHECKING:
    from actors.engine.compilation import CompiledPrograms
    from actors.engine.engine import Engine


@dataclass(frozen=True)
class ReplicaSpec:
    """Everything a replica needs to start.

    The same for all replicas of a run. Picklable, free of JAX.
    """

    model: ModelConfig
    checkpoint: str  # folder or URL
    mesh: tuple[int, int]  # data x model
    dtype: Literal["bfloat16", "float32"]
    engine: EngineConfig
    # bytes that each token id decodes to; None: no stop strings
    token_bytes: tuple[bytes, ...] | None = None
    # auto: int8 where a kernel reads it, dense (dequantised once) elsewhere
    weights: Literal["auto", "int8", "dense"] = "auto"
    # step functions that the run calls
    steps: tuple[StepName, ...] = ("prefill", "decode", "score")


@dataclass(slots=True, eq=False)
class StartUp:
    """How far a replica is that is not ready, and whether it may compile.

    The process of the replica uses it while the replica is made, from other threads.

    Attributes:
        loaded: share of the parameters that are on the devices.
        compiled: programs that are compiled while weights load.
        cache: where their results are kept.
        turn_timeout_s: a replica compiles itself if it has not got its turn after this time.
    """

    loaded: float = 0.0
    compiled: "CompiledPrograms | None" = None
    cache: CompileCache | None = None
    turn_timeout_s: float = TURN_TIMEOUT_S
    _may_compile: threading.Event = field(default_factory=threading.Event)
    _has_requested: threading.Event = field(default_factory=threading.Event)
    _waited: threading.Lock = field(default_factory=threading.Lock)
    _has_waited: bool = False

    def heartbeat(self) -> Heartbeat:
        """Returns shares of weights and programs."""
        if self.compiled is None:
            return Heartbeat("loading", loaded=self.loaded)
        counts = self.compiled.counts()
        return Heartbeat(
            "loading",
            loaded=self.loaded,
            programs=counts.requested,
            compiled=counts.compiled,
        )

    def allow_compilation(self) -> None:
        """Gives the replica its turn."""
        self._may_compile.set()

    def wait_for_turn(self) -> None:
        """Returns when the replica may compile, with the programs of others in its cache."""
        with self._waited:
            if self._has_waited:
                return
            self._has_waited = True
            if self._may_compile.is_set():
                return  # it is the first one
            self._may_compile.wait(self.turn_timeout_s)
            if self.cache is not None:
                self.cache.download()

    def set_programs(self, compiled: "CompiledPrograms | None") -> None:
        """Records the programs that are compiled while weights load, None where there are none."""
        self.compiled = compiled
        self._has_requested.set()

    def wait_for_programs(self) -> None:
        """Returns when the programs that are compiled while weights load are in the cache."""
        self._has_requested.wait()
        if self.compiled is not None:
            self.compiled.wait()
        if self.cache is not None:
            self.cache.upload()

    def set_loaded(self, share: float) -> None:
        """Records the share of the weights that are on the devices."""
        self.loaded = share


@dataclass(slots=True, eq=False)
class _Ticket:
    """A batch in the engine, and its completions so far."""

    missing: int
    completions: list[Completion] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    def deliver(self, completion: Completion) -> None:
        self.completions.append(completion)
        self.missing -= 1
        if self.missing == 0:
            self.done.set()


class Replica:
    """Loads the model onto its mesh and answers batches.

    Raises:
        ModelError: checkpoint, mesh or memory do not fit the model.
    """

    def __init__(
        self, spec: ReplicaSpec, name: str = "replica", start: StartUp | None = None
    ) -> None:
        began = time.perf_counter()
        self._spec = spec
        self._name = name
        self._compile_cache = compile_cache(os.environ)
        configure_jax(self._compile_cache, os.environ)
        self._compile_cache.download()
        self._compile_cache.evict()
        if start is None:
            start = StartUp()
            start.allow_compilation()
        start.cache = self._compile_cache
        self._engine = _load_engine(spec, start)
        self._load_s = time.perf_counter() - began
        self._inbox: deque[tuple[Request, _Ticket]] = deque()
        self._tickets: dict[RowRef, _Ticket] = {}
        self._open: set[_Ticket] = set()  # batches whose caller waits
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._closed = False
        # when the engine began its present step; None: it has nothing to do
        self._step_began_s: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"{name}-engine", daemon=True)
        self._thread.start()

    def info(self) -> ReplicaInfo:
        """Returns devices, sizes and loading time of this replica."""
        programs = self._engine.programs
        context = self._engine.context
        return ReplicaInfo(
            name=self._name,
            node=socket.gethostname(),
            devices=tuple(device.device_kind for device in context.mesh.devices.flat),
            mesh=f"{context.data_shards}x{context.model_shards}",
            weight_bytes=_bytes_per_device(programs.params),
            cache_bytes=_bytes_per_device(programs.cache),
            cache_tokens=self._engine.cache_tokens * context.data_shards,
            slots=context.engine.slots,
            load_s=self._load_s,
            dtype=self._spec.dtype,
            versions=_versions(),
        )

    def stats(self) -> ReplicaStats:
        """Returns the counters since the start."""
        return self._engine.stats()

    def heartbeat(self) -> Heartbeat:
        """Returns what the engine is doing and for how long.

        Takes no lock: a hung engine may hold any.
        """
        step_began_s = self._step_began_s
        programs = self._engine.programs
        if step_began_s is None:
            return Heartbeat("idle")
        compiling_since_s = programs.compiling_since_s
        if compiling_since_s is not None:
            counts = programs.counts()
            return Heartbeat(
                "compilation",
                time.perf_counter() - compiling_since_s,
                programs=counts.requested,
                compiled=counts.compiled,
            )
        return Heartbeat("step", time.perf_counter() - max(step_began_s, programs.compiled_at_s))

    def run(self, batch: Batch) -> BatchResult:
        """Runs a batch to its end; every request of it comes back as a completion, errors included.

        Raises:
            ReplicaError: the engine broke; this replica cannot be used again and its work must be
                queued again elsewhere.
        """
        ticket = _Ticket(missing=len(batch.requests))
        with self._changed:
            self._require_alive()
            self._open.add(ticket)
            self._inbox.extend((request, ticket) for request in batch.requests)
            self._changed.notify()
        if batch.requests:
            ticket.done.wait()
        self._open.discard(ticket)
        if ticket.failure is not None:
            raise _broken(self._name, ticket.failure) from ticket.failure
        # Not later: the pool may end this process as soon as the last batch is back.
        self._compile_cache.upload()
        return BatchResult(completions=tuple(ticket.completions), stats=self.stats())

    def close(self) -> None:
        """Ends the engine's thread; batches that still run fail with ReplicaError."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._engine.programs.close()

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise _broken(self._name, self._failure) from self._failure
        if self._closed:
            raise ReplicaError(f"{self._name}: closed")

    def _work(self) -> None:
        """The engine's thread: takes requests in, steps, delivers.

        Any failure ends it and every batch it held.
        """
        try:
            while self._take_in():
                for completion in self._engine.step():
                    self._tickets.pop(completion.ref).deliver(completion)
        # Every caller of run() raises it: nothing is swallowed.
        except BaseException as failure:  # noqa: BLE001
            self._fail(failure)
        else:
            self._fail(ReplicaError(f"{self._name}: closed"))

    def _take_in(self) -> bool:
        """Moves the inbox into the engine, waiting for work when there is none.

        Returns False once closed.
        """
        with self._changed:
            while not self._inbox and self._engine.idle and not self._closed:
                self._step_began_s = None
                self._changed.wait()
            if not self._engine.programs.counts().requested:
                self._wait_for_first_batches()
            self._step_began_s = time.perf_counter()
            arrived = list(self._inbox)
            self._inbox.clear()
            closed = self._closed
        for request, ticket in arrived:
            try:
                self._engine.add(request)
            except RequestError as error:
                ticket.deliver(Completion.failed(request.ref, error.code, str(error)))
            else:
                self._tickets[request.ref] = ticket
        return not closed

    def _wait_for_first_batches(self) -> None:
        """Returns when no more batches come in; `_changed` is held.

        The sizes of the first call are those that get compiled: without the batches that follow the
        first one within moments, chance would decide which, and an equal run would find others in
        the compile cache.
        """
        requests = 0
        while len(self._inbox) > requests and not self._closed:
            requests = len(self._inbox)
            self._changed.wait(FIRST_BATCHES_APART_S)

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = failure
            self._step_began_s = None
            unanswered = list(self._open)
        for ticket in unanswered:
            ticket.failure = failure
            ticket.done.set()


def _broken(name: str, failure: BaseException) -> ReplicaError:
    return ReplicaError(f"{name}: the engine stopped: {type(failure).__name__}: {failure}")


def _load_engine(spec: ReplicaSpec, start: StartUp) -> "Engine":
    """Imports JAX, builds the mesh, loads the weights onto it and makes the engine."""
    import jax.numpy as jnp

    from actors.engine.early_programs import early_programs, largest_shapes
    from actors.engine.engine import Engine
    from actors.engine.steps import EngineContext
    from actors.kernels.choice import platform_of
    from actors.model import sharding
    from actors.weights import checkpoint
    from actors.weights.node_cache import node_copy

    mesh = sharding.make_mesh(*spec.mesh)
    dtype = jnp.dtype(spec.dtype)
    platform = platform_of(mesh.devices.flat[0])
    dense = platform.is_dense(spec.weights)
    context = EngineContext(spec.model, spec.engine, dtype, mesh)
    compiled = early_programs(context, spec.steps, dense=dense, wait_for_turn=start.wait_for_turn)
    start.set_programs(compiled)

    # without a name of their own, so that the int8 weights are freed before the cache is made
    params = platform.prepare(
        checkpoint.load(node_copy(spec.checkpoint), spec.model, mesh, start.set_loaded),
        dtype,
        dense=dense,
    )
    engine = Engine(context, params, spec.token_bytes, compiled)
    if compiled is not None:
        # A program that cannot be compiled fails the start, not the first batch.
        for shape in largest_shapes(context, spec.steps):
            engine.programs.prepare(shape)
    return engine


def _versions() -> tuple[tuple[str, str], ...]:
    """Returns the versions of this package and of the libraries that compute results."""
    libraries = [(name, metadata.version(name)) for name in LIBRARIES]
    return (("grok-batch", VERSION), *libraries)


def _bytes_per_device(tree: object) -> int:
    """Returns the bytes of a tree of arrays that lie on the mesh's first device."""
    import jax

    leaves: Sequence[jax.Array] = jax.tree.leaves(tree)
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
