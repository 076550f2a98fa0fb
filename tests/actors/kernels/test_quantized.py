"""Int8 weights: what they stand for, and products with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.quantized import QuantizedWeight, dequantize, matmul
from actors.weights.random_weights import quantize
from tests import reference


def weight(shape: tuple[int, ...], groups: int, seed: int = 0) -> QuantizedWeight:
    host = quantize(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32), groups)
    return QuantizedWeight(jnp.asarray(host.weight), jnp.asarray(host.scales))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_dequantize_to_float32_is_exact(groups: int) -> None:
    w = weight((3, 16, 5), groups)
    assert w.shape == (3, 16, 5)
    np.testing.assert_array_equal(
        np.asarray(dequantize(w, jnp.float32), np.float64), reference.dequantised(w)
    )


def test_dequantize_to_bfloat16_rounds_to_nearest() -> None:
    w = weight((16, 5), 8)
    expected = reference.dequantised(w).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(dequantize(w, jnp.bfloat16)), expected)


@pytest.mark.parametrize("groups", [1, 8])
def test_matmul_with_grouped_scales(groups: int) -> None:
    w = weight((64, 24), groups)
    x = np.random.default_rng(1).standard_normal((2, 7, 64), dtype=np.float32)
    expected = x.astype(np.float64) @ reference.dequantised(w)
    np.testing.assert_allclose(matmul(jnp.asarray(x), w), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        matmul(jnp.asarray(x), dequantize(w, jnp.float32)), expected, rtol=0, atol=1e-5
    )


def test_matmul_in_bfloat16_does_not_round_the_weights() -> None:
    w = weight((64, 24), 8)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((7, 64)), jnp.bfloat16)
    expected = np.asarray(x, np.float64) @ reference.dequantised(w)
    product = matmul(x, w)
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_matmul_in_float32_keeps_its_accuracy_over_long_sums(groups: int) -> None:
    """Terms added one after the other would lose twice as much: about 8e-7."""
    w = weight((2048, 64), groups)
    x = np.random.default_rng(1).standard_normal((64, 2048), dtype=np.float32)
    expected = x.astype(np.float64) @ reference.dequantised(w)
    error = np.asarray(jax.jit(matmul)(x, w), np.float64) - expected
    assert np.sqrt(np.square(error).mean() / np.square(expected).mean()) < 6e-7


@pytest.mark.parametrize("rows", [1, 18, 30])
def test_matmul_with_rows_that_no_partial_sum_divides(rows: int) -> None:
    w = weight((rows, 5), 1)
    x = np.random.default_rng(1).standard_normal((3, rows), dtype=np.float32)
    expected = x.astype(np.float64) @ reference.dequantised(w)
    np.testing.assert_allclose(matmul(jnp.asarray(x), w), expected, rtol=0, atol=1e-5)
