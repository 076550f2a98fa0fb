"""Int8 weights as the kernels of a GPU read them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from actors.kernels.gpu.layout import TransposedExperts, pack_for_device
from actors.kernels.quantized import QuantizedWeight
from actors.model import sharding


@pytest.mark.parametrize("mesh", [(1, 1), (1, 4)])
def test_pack_for_device_transposes_experts_and_frees_the_old(mesh: tuple[int, int]) -> None:
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
    new = pack_for_device(old | {"norm": {"scale": placed(plain, "float32", None)}}, jnp.bfloat16)
    stored = new["moe"]["w"]
    assert isinstance(stored, TransposedExperts)
    assert stored.shape == (2, 12, 8)
    np.testing.assert_array_equal(stored.weight, values.swapaxes(1, 2))
    assert stored.weight.sharding.spec == PartitionSpec(None, None, "model")
    assert experts.weight.is_deleted()  # a device never holds more than one weight twice
    assert new["linear"]["w"] is linear
    assert new["embed"]["embeddings"].dtype == jnp.bfloat16
    assert new["norm"]["scale"].dtype == jnp.float32
