"""Weights and KV pages of one replica on its mesh, and the compiled programs over them.

Host arrays in, host arrays out; hidden states stay on the devices. Every program is compiled once
per shape of the scheduler's size buckets, counted and timed.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from actors.engine.planning.sizes import (
    DEVICE_SHARE,
    HOST_CACHE_BYTES,
    cache_bytes_per_token,
    cache_tokens,
)
from actors.engine.steps import ROWS, DecodeInput, DecodeOutput, EngineContext, step_functions
from actors.engine.vocabulary import Likelihood
from actors.model.language_model import Cache, Step, cache_specs, init_cache
from actors.protocol.errors import ModelError


class CompiledPrograms:
    """The step functions of one context, compiled once for each combination of argument shapes.

    Engines of an equal context, on parameters of the same placement, may share one.
    """

    def __init__(self, context: EngineContext, params: Any) -> None:
        self.context = context
        self._functions = step_functions(
            context, jax.tree.map(lambda array: array.sharding.spec, params)
        )
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def find(self, name: str, args: Sequence[Any]) -> Callable[..., Any] | None:
        """Returns the program for the shapes of `args`, None where it is not compiled."""
        return self._compiled.get(_key(name, args))

    def compile(self, name: str, params: Any, args: Sequence[Any]) -> Callable[..., Any]:
        """Compiles a step function for the shapes of `args` and keeps it."""
        function = getattr(self._functions, name)
        compiled: Callable[..., Any] = function.lower(params, *args).compile(
            compiler_options=self.context.platform.compiler_options(self.context.dtype)
        )
        self._compiled[_key(name, args)] = compiled
        return compiled


def _key(name: str, args: Sequence[Any]) -> tuple[Any, ...]:
    return (name, *(leaf.shape for leaf in jax.tree.leaves(args)))


class Programs:
    """Runs the step functions on this replica's weights and cache; counts what it compiles."""

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
        self.programs = 0
        self.compile_s = 0.0
        # another thread reads both: a step that compiles is not a hung one
        self.compiling_since_s: float | None = None
        self.compiled_at_s = 0.0
        self._compiled = compiled or CompiledPrograms(context, params)

    def _run(self, name: str, *args: Any) -> Any:
        """Runs a step function, compiled ahead of time for the shapes of `args`."""
        program = self._compiled.find(name, args)
        if program is None:
            program = self._compile(name, args)
        return program(self.params, *args)

    def _compile(self, name: str, args: Sequence[Any]) -> Callable[..., Any]:
        began_s = time.perf_counter()
        self.compiling_since_s = began_s
        program = self._compiled.compile(name, self.params, args)
        self.compiled_at_s = time.perf_counter()
        self.compiling_since_s = None
        self.compile_s += self.compiled_at_s - began_s
        self.programs += 1
        return program

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self.context.mesh, ROWS))

    def prefill(self, step: Step) -> Float[Array, "B T D"]:
        """Computes the new tokens of `step` (data shards one after the other) into the pages.

        Returns hidden states on the devices.
        """
        hidden, self.cache = self._run("prefill", self.cache, self._place(step))
        # Waiting costs nothing, because a decode follows at once; and it separates the seconds of
        # prefill and decode in the report.
        return hidden.block_until_ready()

    def score(
        self, hidden: Float[Array, "B T D"], position: np.ndarray, target: np.ndarray
    ) -> Likelihood:
        """Returns log-prob, rank test and most likely tokens of targets, under the model itself.

        Args:
            hidden: output of a prefill.
            position: int32 [data_shards * N], flat positions in the hidden states of a data shard.
            target: int32 [data_shards * N], token ids.
        """
        return jax.device_get(self._run("score", hidden, *self._place((position, target))))

    def decode(self, state: DecodeInput) -> DecodeOutput:
        """Generates up to `decode_steps` tokens for every row of `state`."""
        output, self.cache = self._run("decode", self.cache, self._place(state))
        return jax.device_get(output)


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


def affordable_cache_tokens(context: EngineContext) -> int:
    """Returns the tokens of one data shard's KV cache: as configured, or as memory and slots allow.

    Raises:
        ModelError: not even one sequence of `max_len` fits.
    """
    engine = context.engine
    itemsize = jnp.dtype(context.dtype).itemsize
    token_bytes = cache_bytes_per_token(context.model, context.model_shards, itemsize)
    affordable = _free_bytes(context.mesh) // token_bytes
    tokens = cache_tokens(engine, context.data_shards, affordable)
    if tokens < engine.max_len:
        raise ModelError(
            f"KV cache: room for {tokens} tokens on a device, one sequence of max_len "
            f"{engine.max_len} does not fit; lower --max-len or use a mesh with more devices"
        )
    return tokens


def _free_bytes(mesh: Mesh) -> int:
    device = mesh.devices.flat[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats:
        return HOST_CACHE_BYTES // int(mesh.devices.size)
    return int((stats["bytes_limit"] - stats["bytes_in_use"]) * DEVICE_SHARE)
