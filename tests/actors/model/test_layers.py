"""Layers on tiny arrays: norms, products, the embedding and rotations against float64 NumPy."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.kernels.quantized import QuantizedWeight
from actors.model.layers import InOutEmbed, Linear, RMSNorm, rotate
from actors.model.sharding import make_mesh

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (3, 16)).astype(np.float32)
SCALE = RNG.normal(1, 0.5, 16).astype(np.float32)
TABLE = RNG.normal(0, 1, (8, 4)).astype(np.float32)
EVERYWHERE = PartitionSpec()
ROWS = PartitionSpec("model")


def norm(x: Any, scale: Any) -> Any:
    def run(x: Any) -> Any:
        return RMSNorm("norm")(x)

    return hk.transform(run).apply({"norm": {"scale": jnp.asarray(scale)}}, None, jnp.asarray(x))


def exact_norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x64 = x.astype(np.float64)
    mean_square = (x64**2).mean(axis=-1, keepdims=True)
    return x64 / np.sqrt(mean_square + 1e-5) * scale.astype(np.float64)


def test_rms_norm_equals_float64() -> None:
    np.testing.assert_allclose(norm(X, SCALE), exact_norm(X, SCALE), rtol=1e-6)


def test_rms_norm_adds_epsilon_under_the_root() -> None:
    small = np.full((1, 16), 1e-3, np.float32)
    ones = np.ones(16, np.float32)
    np.testing.assert_allclose(norm(small, ones), 1e-3 / np.sqrt(1.1e-5), rtol=1e-5)
    np.testing.assert_array_equal(norm(np.zeros((1, 16), np.float32), ones), 0)


def test_rms_norm_of_bfloat16_is_rounded_once() -> None:
    rounded = np.asarray(jnp.asarray(X, jnp.bfloat16))
    result = norm(rounded, SCALE)
    assert result.dtype == jnp.bfloat16
    exact = exact_norm(np.asarray(rounded, np.float32), SCALE)
    np.testing.assert_allclose(np.asarray(result, np.float64), exact, rtol=2**-8)


def linear(x: Any, weight: Any) -> Any:
    def run(x: Any) -> Any:
        return Linear(5, name="linear")(x)

    return hk.transform(run).apply({"linear": {"w": weight}}, None, x)


def test_linear_multiplies_with_int8_and_its_scales() -> None:
    weight = RNG.integers(-127, 128, (16, 5)).astype(np.int8)
    scales = RNG.uniform(0.5, 2, (4, 5)).astype(jnp.bfloat16)
    result = linear(jnp.asarray(X), QuantizedWeight(jnp.asarray(weight), jnp.asarray(scales)))
    exact_weight = weight * np.repeat(scales.astype(np.float64), 4, axis=0)
    np.testing.assert_allclose(result, X.astype(np.float64) @ exact_weight, rtol=1e-5, atol=1e-3)


def test_linear_keeps_the_type_of_its_input() -> None:
    weight = jnp.ones((16, 5), jnp.bfloat16)
    assert linear(jnp.asarray(X, jnp.bfloat16), weight).dtype == jnp.bfloat16


@pytest.mark.parametrize("shards", [1, 4])
def test_embedding_encodes_tokens_of_every_device(shards: int) -> None:
    tokens = np.array([[0, 7, 3], [2, 2, 5]], np.int32)

    def run(tokens: Any) -> Any:
        return InOutEmbed(8 // shards, 4, name="embed").encode(tokens, jnp.float32)

    def body(table: Any, tokens: Any) -> Any:
        return hk.transform(run).apply({"embed": {"embeddings": table}}, None, tokens)

    mapped = jax.shard_map(
        body, mesh=make_mesh(1, shards), in_specs=(ROWS, EVERYWHERE), out_specs=EVERYWHERE
    )
    np.testing.assert_array_equal(mapped(jnp.asarray(TABLE), jnp.asarray(tokens)), TABLE[tokens])


def test_embedding_decodes_with_the_same_table() -> None:
    def run(hidden: Any) -> Any:
        return InOutEmbed(8, 4, name="embed").decode(hidden)

    params = {"embed": {"embeddings": jnp.asarray(TABLE)}}
    logits = hk.transform(run).apply(params, None, jnp.asarray(TABLE[:3]))
    exact = TABLE[:3].astype(np.float64) @ TABLE.T.astype(np.float64)
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-6)


def rotated(x_C: np.ndarray, position: int) -> np.ndarray:
    x_BTKC = jnp.asarray(x_C, jnp.float32)[None, None, None, :]
    positions_BT = jnp.asarray([[position]], jnp.int32)
    return np.asarray(rotate(x_BTKC, positions_BT))[0, 0, 0]


@pytest.mark.parametrize("position", [0, 1, 7, 1000])
def test_rotation_multiplies_complex_numbers_of_both_halves(position: int) -> None:
    x = X[0]
    pairs = x[:8] + 1j * x[8:].astype(np.float64)
    angles = position / 10000.0 ** (np.arange(8) / 8)
    exact = pairs * np.exp(1j * angles)
    expected = np.concatenate([exact.real, exact.imag])
    np.testing.assert_allclose(rotated(x, position), expected, atol=1e-3 if position > 7 else 1e-5)


@pytest.mark.parametrize("position", [1, 63, 4095])
def test_rotation_preserves_norms(position: int) -> None:
    for x in X:
        np.testing.assert_allclose(
            np.linalg.norm(rotated(x, position)), np.linalg.norm(x), rtol=1e-5
        )


def test_rotation_at_position_0_changes_nothing() -> None:
    np.testing.assert_array_equal(rotated(X[0], 0), X[0])


@pytest.mark.parametrize("shift", [1, 5, 40])
def test_products_of_rotations_depend_on_the_distance_only(shift: int) -> None:
    query, key = X[:2]
    product = rotated(query, 9) @ rotated(key, 4)
    shifted = rotated(query, 9 + shift) @ rotated(key, 4 + shift)
    np.testing.assert_allclose(shifted, product, rtol=1e-4, atol=1e-4)
    assert abs(rotated(query, 10) @ rotated(key, 4) - product) > 1e-2


def test_rotation_keeps_bfloat16_and_rotates_in_float32() -> None:
    """In bfloat16 itself, position 1001 would be 1000."""
    x_BTKC = jnp.asarray(X[None, :1, None, :], jnp.bfloat16)
    positions_BT = jnp.asarray([[1001]], jnp.int32)
    result = rotate(x_BTKC, positions_BT)
    assert result.dtype == jnp.bfloat16
    exact = rotated(np.asarray(x_BTKC, np.float32)[0, 0, 0], 1001)
    np.testing.assert_allclose(
        np.asarray(result, np.float32)[0, 0, 0], exact, rtol=2**-7, atol=1e-3
    )
