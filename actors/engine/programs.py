"""Weights and KV pages of one replica on its mesh, and calls of the compiled programs over them.

Host arrays in, arrays on the devices out: a call returns when it is dispatched, and runs after
those that were dispatched before. `read` waits for its results.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from actors.engine.compilation import CompileCounts, CompiledPrograms, ProgramShape
from actors.engine.packing import pack
from actors.engine.planning.abstract import bytes_per_device
from actors.engine.planning.sizes import (
    DEVICE_SHARE,
    HOST_CACHE_BYTES,
    cache_bytes_per_token,
    cache_tokens,
)
from actors.engine.steps import ROWS, DecodeInput, DecodeOutput, EngineContext
from actors.engine.vocabulary import Likelihood
from actors.model.language_model import Cache, Step, cache_specs, init_cache
from actors.protocol.errors import ModelError

Tree = TypeVar("Tree")


class Programs:
    """Runs the step functions on this replica's weights and cache, and waits for compilations."""

    def __init__(
        self,
        context: EngineContext,
        params: Any,
        pages_per_data_shard: int,
        compiled: CompiledPrograms | None = None,
    ) -> None:
        self.context = context
        self.params = params
        self.cache = _empty_cache(context, pages_per_data_shard)
        self.compile_s = 0.0  # for which calls waited
        # another thread reads both: a step that compiles is not a hung one
        self.compiling_since_s: float | None = None
        self.compiled_at_s = 0.0
        self._compiled = compiled or CompiledPrograms(context, params)

    @property
    def programs(self) -> int:
        """Programs compiled so far, those in the background included."""
        return self.counts().compiled

    def counts(self) -> CompileCounts:
        """Returns what was requested and compiled so far."""
        return self._compiled.counts()

    def choose(self, shape: ProgramShape) -> ProgramShape:
        """Returns the shape that a call of `shape` runs with: itself, or a larger one.

        A shape that was padded often is requested.
        """
        chosen = self._compiled.choose(shape)
        if chosen != shape and self._compiled.wastes(shape, chosen):
            self._compiled.request(shape, self.cache)
        return chosen

    def prepare(self, chosen: ProgramShape, following: Sequence[ProgramShape] = ()) -> None:
        """Waits until a chosen shape is compiled.

        Args:
            chosen: by `choose`.
            following: shapes of later calls, compiled in the background if nothing holds them.

        Raises:
            ModelError: it cannot be compiled.
        """
        is_compiled = self._compiled.is_compiled(chosen)
        began_s = time.perf_counter()
        if not is_compiled:
            self.compiling_since_s = began_s
        future = self._compiled.request(chosen, self.cache)
        for shape in following:
            self._compiled.request(self._compiled.choose(shape), self.cache)
        future.result()
        if not is_compiled:
            self._end_compilation(began_s)

    def close(self) -> None:
        """Ends compilations in the background."""
        self._compiled.close()

    def _end_compilation(self, began_s: float) -> None:
        self.compiled_at_s = time.perf_counter()
        self.compiling_since_s = None
        self.compile_s += self.compiled_at_s - began_s

    def _run(self, name: str, *args: Any) -> Any:
        """Runs a step function, compiled ahead of time for the shapes of `args`."""
        program = self._compiled.find(name, args)
        if program is None:
            began_s = time.perf_counter()
            self.compiling_since_s = began_s
            program = self._compiled.compile(name, self.params, args)
            self._end_compilation(began_s)
        return program(self.params, *args)

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self.context.mesh, ROWS))

    def prefill(self, step: Step) -> Float[Array, "B T D"]:
        """Computes the new tokens of `step` (data shards one after the other) into the pages.

        Returns hidden states.
        """
        hidden: Array
        hidden, self.cache = self._run("prefill", self.cache, self._place(step))
        return hidden

    def score(
        self, hidden: Float[Array, "B T D"], position: np.ndarray, target: np.ndarray
    ) -> Likelihood:
        """Returns log-prob, rank test and most likely tokens of targets, under the model itself.

        Args:
            hidden: output of a prefill.
            position: int32 [data_shards * N], flat positions in the hidden states of a data shard.
            target: int32 [data_shards * N], token ids.
        """
        results: Likelihood = self._run("score", hidden, *self._place((position, target)))
        return results

    def pool(self, hidden: Float[Array, "B T D"], count: np.ndarray) -> Float[Array, "B D"]:
        """Returns the pooled hidden states of each row of a prefill, float32.

        Args:
            hidden: output of a prefill.
            count: int32 [data_shards * rows], tokens of each row; 0: the row is not used.
        """
        pooled: Array = self._run("pool", hidden, self._place(count))
        return pooled

    def decode(self, state: DecodeInput) -> DecodeOutput:
        """Generates up to `decode_steps` tokens for every row of `state`."""
        output: DecodeOutput
        output, self.cache = self._run("decode", self.cache, self._place(pack(state)))
        return output


def read(results: Tree) -> Tree:
    """Waits for the results of a call; returns them as NumPy arrays."""
    host_results: Tree = jax.device_get(results)
    return host_results


def _empty_cache(context: EngineContext, pages_per_data_shard: int) -> Cache:
    """Allocates the cache on its devices: no device ever holds more than its part."""
    make = partial(
        init_cache,
        context.model,
        pages=pages_per_data_shard,
        page_size=context.engine.page_size,
        dtype=context.cache_dtype,
        model_shards=context.model_shards,
    )
    sharded = jax.shard_map(
        make, mesh=context.mesh, in_specs=(), out_specs=cache_specs(context.model), check_vma=False
    )
    return jax.jit(sharded)()


def affordable_cache_tokens(context: EngineContext, params: Any) -> int:
    """Returns the tokens of one data shard's KV cache: as configured, or as memory and slots allow.

    Programs are compiled for this size, so it follows from the bytes of the weights, not from what
    happens to be free: the same on all replicas, and before weights are loaded.

    Args:
        context: model, sizes, dtype and mesh.
        params: the parameters, or their shapes with shardings.

    Raises:
        ModelError: not even one sequence of `max_len` fits.
    """
    engine = context.engine
    itemsize = jnp.dtype(context.dtype).itemsize
    token_bytes = cache_bytes_per_token(context.model, context.model_shards, itemsize)
    affordable = _free_bytes(context.mesh, params) // token_bytes
    tokens = cache_tokens(engine, context.data_shards, affordable)
    if tokens < engine.max_len:
        raise ModelError(
            f"KV cache: room for {tokens} tokens on a device, one sequence of max_len "
            f"{engine.max_len} does not fit; lower --max-len or use a mesh with more devices"
        )
    return tokens


def _free_bytes(mesh: Mesh, params: Any) -> int:
    device = mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats:
        return HOST_CACHE_BYTES // int(mesh.devices.size)
    return int((stats["bytes_limit"] - bytes_per_device(params)) * DEVICE_SHARE)
