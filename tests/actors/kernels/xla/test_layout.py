"""Dense weights: products with them, and int8 parameters dequantized on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.xla.layout import TransposedWeight, expert_matmul
from actors.model import sharding
from tests import reference
from tests.actors.model.models import conformance_model


@pytest.mark.parametrize("shape", [(16, 5), (5, 16)], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_expert_matmul_with_a_transposed_weight(shape: tuple[int, int], dtype: jnp.dtype) -> None:
    rng = np.random.default_rng(2)
    x, w = (jnp.asarray(rng.standard_normal(s), dtype) for s in ((2, 3, shape[0]), shape))
    product = expert_matmul(x, TransposedWeight(w.T))
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(
        product, np.asarray(x, np.float64) @ np.asarray(w, np.float64), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("mesh", [(1, 1), (1, 8), (2, 4)])
def test_dequantize_params_keeps_names_and_shardings(mesh: tuple[int, int]) -> None:
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
