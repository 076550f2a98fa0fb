"""device_time.py: chains of runs that the compiler can neither skip nor reorder."""

import jax
import jax.numpy as jnp
import pytest

from jobs.checks import device_time
from jobs.checks.device_time import chain, chained_time, queued_time


def product(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.tanh(x @ w)


def test_chain_runs_the_function_in_every_step() -> None:
    x = jnp.ones((4, 8))
    w = jnp.ones((8, 8))

    program = jax.jit(chain(product)).lower(x, w).compile()

    assert program(x, w) == 0
    # a loop with all runs of a step, each with its whole result: [4, 8], not one number
    text = program.as_text()
    assert text.count(" while(") == 1
    assert text.count("f32[4,8]{1,0} dot(") == device_time.CHAIN_UNROLL


def test_chain_passes_a_result_that_is_not_a_number_on() -> None:
    x = jnp.full((4, 8), jnp.nan)
    w = jnp.ones((8, 8))

    assert jax.jit(chain(product))(x, w) == 1


def test_chained_time_is_that_of_one_run() -> None:
    x = jnp.ones((64, 256))
    w = jnp.ones((256, 256))
    compiled = jax.jit(product)

    chained = chained_time(product, (x, w))
    queued = queued_time(lambda: compiled(x, w))

    assert 0 < chained.shortest_s <= chained.median_s
    assert chained.shortest_s < 30 * queued.median_s


@pytest.mark.parametrize(("call_s", "count"), [(1.0, 1), (2e-3, 10), (1e-9, 50)])
def test_measurement_repeats_short_calls(call_s: float, count: int) -> None:
    assert device_time._calls_per_measurement(call_s) == count
