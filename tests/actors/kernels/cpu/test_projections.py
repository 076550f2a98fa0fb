"""Products with one packed weight: against float64, and with the same bits in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from actors.kernels.cpu import projections
from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.layout import pack_matrix, pack_table
from actors.kernels.cpu.tiles import AMX_BF16
from actors.kernels.quantized import QuantizedWeight, dequantize
from actors.model import sharding
from tests.actors.kernels.test_quantized import weight

if AMX_BF16 not in instruction_sets():
    pytest.skip("this process has no tile registers", allow_module_level=True)

ROWS = (1, 8, 33)
project = jax.jit(projections.project)
logits = jax.jit(projections.logits)


def activations(rows: int, width: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((rows, width)), jnp.bfloat16)


def float64(x: jax.Array) -> np.ndarray:
    return np.asarray(x.astype(jnp.float32)).astype(np.float64)


@pytest.mark.parametrize(("width", "columns", "groups"), [(64, 96, 2), (38, 70, 1)])
def test_project_matches_the_product_in_any_batch(width: int, columns: int, groups: int) -> None:
    loaded = weight((width, columns), groups)
    x_RD = activations(max(ROWS), width)
    expected = float64(x_RD) @ float64(dequantize(loaded, jnp.float32))

    packed = pack_matrix(loaded, AMX_BF16)
    products = [float64(project(x_RD[:rows], packed)) for rows in ROWS]

    assert packed.shape == (width, columns)
    np.testing.assert_allclose(products[-1], expected, rtol=2**-7, atol=2**-7)
    for rows, product in zip(ROWS, products, strict=True):
        np.testing.assert_array_equal(product, products[-1][:rows])


def test_pack_matrix_keeps_a_split_over_devices() -> None:
    mesh = sharding.make_mesh(1, 8)
    loaded = weight((32, 64), 1)
    columns_split = NamedSharding(mesh, PartitionSpec(None, "model"))
    placed = QuantizedWeight(*(jax.device_put(array, columns_split) for array in loaded))

    packed = pack_matrix(placed, AMX_BF16)

    assert packed.shape == (32, 8)
    assert packed.experts.weight.sharding.spec == PartitionSpec(None, "model", None)


@pytest.mark.parametrize(("vocabulary", "width"), [(128, 64), (100, 38)])
def test_logits_match_the_product_in_any_batch(vocabulary: int, width: int) -> None:
    table_UD = activations(vocabulary, width).astype(jnp.float32)
    hidden_RD = activations(max(ROWS), width)
    expected = float64(hidden_RD) @ float64(table_UD).T

    table = pack_table(table_UD)
    products = [float64(logits(hidden_RD[:rows], table)) for rows in ROWS]

    assert table.shape == (vocabulary, width)
    np.testing.assert_allclose(products[-1], expected, rtol=1e-5, atol=1e-5)
    for rows, product in zip(ROWS, products, strict=True):
        np.testing.assert_array_equal(product, products[-1][:rows])
