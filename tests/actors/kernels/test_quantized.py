"""Int8 weights: what they stand for, and products with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from actors.kernels import quantized
from actors.kernels.quantized import (
    DenseExperts,
    QuantizedWeight,
    TransposedWeight,
    dequantize,
    expert,
    matmul,
)
from actors.model import sharding
from actors.weights.checkpoint import quantize
from tests import reference
from tests.actors.model.models import conformance_model


def weight(shape: tuple[int, ...], groups: int, seed: int = 0) -> QuantizedWeight:
    host = quantize(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32), groups)
    return QuantizedWeight(jnp.asarray(host.weight), jnp.asarray(host.scales))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_float32_is_exact(groups: int) -> None:
    w = weight((3, 16, 5), groups)
    assert w.shape == (3, 16, 5)
    np.testing.assert_array_equal(
        np.asarray(dequantize(w, jnp.float32), np.float64), reference.dequantised(w)
    )


def test_bfloat16_rounds_to_nearest() -> None:
    w = weight((16, 5), 8)
    expected = reference.dequantised(w).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(dequantize(w, jnp.bfloat16)), expected)


@pytest.mark.parametrize("groups", [1, 8])
def test_product_with_grouped_scales(groups: int) -> None:
    w = weight((64, 24), groups)
    x = np.random.default_rng(1).standard_normal((2, 7, 64), dtype=np.float32)
    expected = x.astype(np.float64) @ reference.dequantised(w)
    np.testing.assert_allclose(matmul(jnp.asarray(x), w), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        matmul(jnp.asarray(x), dequantize(w, jnp.float32)), expected, rtol=0, atol=1e-5
    )


def test_bfloat16_product_does_not_round_the_weights() -> None:
    w = weight((64, 24), 8)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((7, 64)), jnp.bfloat16)
    expected = np.asarray(x, np.float64) @ reference.dequantised(w)
    product = matmul(x, w)
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_long_float32_sum_over_int8_rows_keeps_its_accuracy(groups: int) -> None:
    """Terms added one after the other would lose twice as much: about 8e-7."""
    w = weight((2048, 64), groups)
    x = np.random.default_rng(1).standard_normal((64, 2048), dtype=np.float32)
    expected = x.astype(np.float64) @ reference.dequantised(w)
    error = np.asarray(jax.jit(matmul)(x, w), np.float64) - expected
    assert np.sqrt(np.square(error).mean() / np.square(expected).mean()) < 6e-7


def test_one_expert_of_every_form() -> None:
    stacked = weight((3, 16, 5), 8)
    plain = dequantize(stacked, jnp.float32)
    one = expert(stacked, 1)
    assert isinstance(one, QuantizedWeight)
    dense = DenseExperts(tuple(jnp.matrix_transpose(plain)))
    assert plain.shape == dense.shape == (3, 16, 5)
    np.testing.assert_array_equal(expert(plain, 1), dequantize(one, jnp.float32))
    np.testing.assert_array_equal(
        expert(dense, 1), TransposedWeight(dequantize(one, jnp.float32).T)
    )


@pytest.mark.parametrize("shape", [(16, 5), (5, 16)], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_with_a_transposed_weight(shape: tuple[int, int], dtype: jnp.dtype) -> None:
    rng = np.random.default_rng(2)
    x, w = (jnp.asarray(rng.standard_normal(s), dtype) for s in ((2, 3, shape[0]), shape))
    product = matmul(x, TransposedWeight(w.T))
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(
        product, np.asarray(x, np.float64) @ np.asarray(w, np.float64), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("mesh", [(1, 1), (1, 8), (2, 4)])
def test_densify_keeps_names_and_places(mesh: tuple[int, int]) -> None:
    model, int8 = conformance_model("mha", mesh), conformance_model("mha", mesh, dense=False)
    specs = jax.tree.map(lambda a: a.sharding.spec, model.params)
    assert specs == sharding.parameter_specs(model.config, dense=True)
    assert {m: set(p) for m, p in model.params.items()} == {
        m: set(p) for m, p in int8.params.items()
    }
    name = "transformer/decoder_layer_1/moe/linear_1"
    np.testing.assert_array_equal(
        jnp.matrix_transpose(jnp.stack(model.params[name]["w"].experts)),
        reference.dequantised(int8.params[name]["w"]),
    )


def test_quantize_is_within_half_a_step() -> None:
    values = np.random.default_rng(2).standard_normal((4, 32, 6)).astype(np.float32)
    host = quantize(values, 4)
    step = np.repeat(host.scales.astype(np.float32), 8, axis=-2)
    # the scale is rounded to bfloat16, so the largest value of a group may be cut by half a percent
    assert (
        np.abs(reference.dequantised(host) - values) <= step * 0.5 + np.abs(values) * 2**-8
    ).all()
    assert np.abs(host.weight).max() <= 127
    np.testing.assert_array_equal(quantize(np.zeros((8, 2), np.float32), 8).weight, 0)
    with pytest.raises(ValueError, match="30 rows cannot be cut into 8 equal groups"):
        quantize(values[:, :30], 8)


@pytest.mark.parametrize("mesh", [(1, 1), (1, 4)])
def test_arranged_parameters_are_the_same_numbers_stored_otherwise(mesh: tuple[int, int]) -> None:
    devices, rng = sharding.make_mesh(*mesh), np.random.default_rng(0)

    def placed(array: np.ndarray, dtype: str, *spec: str | None) -> jax.Array:
        return jax.device_put(
            jnp.asarray(array, dtype), NamedSharding(devices, PartitionSpec(*spec))
        )

    values, scales = rng.integers(-127, 128, (2, 12, 8)), rng.random((2, 4, 8))
    table, plain = rng.random((16, 4)), rng.random(4)
    experts = QuantizedWeight(
        placed(values, "int8", None, "model", None), placed(scales, "bfloat16", None, "model", None)
    )
    linear = QuantizedWeight(
        placed(values[0], "int8", None, "model"), placed(scales[0], "bfloat16", None, "model")
    )
    old = {
        "moe": {"w": experts},
        "linear": {"w": linear},
        "embed": {"embeddings": placed(table, "float32", "model", None)},
    }
    new = quantized.arrange(old | {"norm": {"scale": placed(plain, "float32", None)}}, jnp.bfloat16)
    stored = new["moe"]["w"]
    assert isinstance(stored, quantized.TransposedExperts)
    assert stored.shape == (2, 12, 8)
    np.testing.assert_array_equal(stored.weight, values.swapaxes(1, 2))
    assert stored.weight.sharding.spec == PartitionSpec(None, None, "model")
    assert experts.weight.is_deleted()  # a device never holds more than one weight twice
    assert new["linear"]["w"] is linear
    assert new["embed"]["embeddings"].dtype == jnp.bfloat16
    assert new["norm"]["scale"].dtype == jnp.float32
