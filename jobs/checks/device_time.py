"""Times of functions on a device, without the time that Python takes to start them.

A call of a compiled function costs the host 30 to 100 us. Functions that take longer are queued:
the device works while the host prepares the next call. Shorter ones run in a chain, many times in
one program, each after the one before.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

CHAIN_STEPS = 8
CHAIN_UNROLL = 4  # a GPU gets the runs of a step as one graph
MEASUREMENTS = 10
MEASUREMENT_S = 0.02  # of one measurement at least
MAX_QUEUED = 50


@dataclass(frozen=True)
class DeviceTime:
    """Seconds of one run: the shortest and the median of several measurements."""

    shortest_s: float
    median_s: float


def queued_time(call: Callable[[], Any]) -> DeviceTime:
    """Returns the time of one call, of many that are queued at once.

    It is the time of the device only where a call takes longer there than on the host.
    """
    jax.block_until_ready(call())  # compiles
    count = _calls_per_measurement(_queued_s(call, 1))
    seconds = [_queued_s(call, count) / count for _ in range(MEASUREMENTS)]
    return DeviceTime(min(seconds), statistics.median(seconds))


def chained_time(function: Callable[..., Any], arguments: tuple[Any, ...]) -> DeviceTime:
    """Returns the time of one run of a function, of many in one program.

    Includes the time from one kernel to the next, and two tiny kernels that make a run depend on
    the result of the one before.

    Args:
        function: of arrays, to arrays.
        arguments: its arguments; the first array of them carries the dependence, so that it must
            be one that the result depends on, and better a small one.
    """
    program = jax.jit(chain(function)).lower(*arguments).compile()
    time_of_chain = queued_time(lambda: program(*arguments))
    runs = CHAIN_STEPS * CHAIN_UNROLL
    return DeviceTime(time_of_chain.shortest_s / runs, time_of_chain.median_s / runs)


def chain(function: Callable[..., Any]) -> Callable[..., Array]:
    """Returns the function that runs `function` CHAIN_STEPS * CHAIN_UNROLL times in sequence.

    A run's first argument gets a number added that the previous result determines. It is zero
    unless that result is not a number, which the compiler cannot know: so it can neither skip runs
    nor start them together.
    """

    def run_chain(*arguments: Any) -> Array:
        def step(_: Any, token: Array) -> Array:
            for _run in range(CHAIN_UNROLL):
                result = function(*_with_token(arguments, token))
                token = _token_of(result)
            return token

        last: Array = jax.lax.fori_loop(0, CHAIN_STEPS, step, jnp.zeros((), jnp.int32))
        return last

    return run_chain


def _with_token(arguments: tuple[Any, ...], token: Array) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten(arguments)
    leaves[0] = leaves[0] + token.astype(leaves[0].dtype)
    return tuple(jax.tree.unflatten(structure, leaves))


def _token_of(result: Any) -> Array:
    """Returns zero, as a number that depends on the whole result."""
    # without the barrier, the compiler would compute the first number of the result alone
    leaves = jax.lax.optimization_barrier(jax.tree.leaves(result))
    first = leaves[0].reshape(-1)[0].astype(jnp.float32)
    return jnp.isnan(first).astype(jnp.int32)


def _queued_s(call: Callable[[], Any], count: int) -> float:
    """Returns the seconds of `count` calls."""
    started_s = time.perf_counter()
    # a device runs its calls in order: the last result is ready after all others
    for _ in range(count):
        result = call()
    jax.block_until_ready(result)
    return time.perf_counter() - started_s


def _calls_per_measurement(call_s: float) -> int:
    return max(1, min(MAX_QUEUED, round(MEASUREMENT_S / max(call_s, 1e-6))))
