"""Loads of blocks with masks, and exact products, in the interpreter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from actors.kernels.gpu.blocks import block_dot, load_block

X = np.arange(24, dtype=np.float32).reshape(4, 6)


def run(kernel: Any, shape: tuple[int, ...], *arrays: np.ndarray) -> np.ndarray:
    out_shape = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = pl.pallas_call(kernel, out_shape=out_shape, interpret=True)
    return np.asarray(call(*map(jnp.asarray, arrays)))


def test_load_block_replaces_numbers_outside_of_any_mask() -> None:
    def kernel(x_ref: Any, out_ref: Any) -> None:
        row = jnp.arange(4)
        column = jnp.arange(8)
        index = (row[:, None], column[None, :])
        out_ref[...] = load_block(x_ref, index, (row != 1, column < 6), other=-1)

    expected = np.pad(X, ((0, 0), (0, 2)), constant_values=-1)
    expected[1] = -1
    np.testing.assert_array_equal(run(kernel, (4, 8), X), expected)


def test_load_block_without_masks_gathers_rows() -> None:
    def kernel(x_ref: Any, out_ref: Any) -> None:
        row = 3 - jnp.arange(4)
        out_ref[...] = load_block(x_ref, (row[:, None], jnp.arange(4)[None, :]), (None, None))

    np.testing.assert_array_equal(run(kernel, (4, 4), X), X[::-1, :4])


def test_block_dot_multiplies_float32_exactly() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 16, 16)).astype(np.float32)

    def kernel(x_ref: Any, y_ref: Any, out_ref: Any) -> None:
        out_ref[...] = block_dot(x_ref[...], y_ref[...])

    expected = x.astype(np.float64) @ y.astype(np.float64)
    np.testing.assert_allclose(run(kernel, (16, 16), x, y), expected, atol=1e-5)
