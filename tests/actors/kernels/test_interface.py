"""interface.py: which weights a platform computes with, and kernels that are traced once."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.interface import Kernels, Platform
from actors.kernels.xla.platform import XLA
from tests import reference
from tests.actors.kernels.test_quantized import weight


def platform(*, dense_by_default: bool = False) -> Platform:
    return Platform(
        name="test",
        kernels=XLA.kernels,
        pack_for_device=lambda params, dtype: {"packed": {"w": jnp.zeros(3, dtype)}},
        cache_dtype=lambda dtype: dtype,
        reads_whole_table=True,
        dense_by_default=dense_by_default,
    )


@pytest.mark.parametrize(
    ("weights", "dense_by_default", "is_dense"),
    [
        ("auto", False, False),
        ("auto", True, True),
        ("int8", False, False),
        ("int8", True, False),
        ("dense", False, True),
        ("dense", True, True),
    ],
)
def test_platform_takes_its_default_for_automatic_weights(
    weights: str, dense_by_default: bool, is_dense: bool
) -> None:
    assert platform(dense_by_default=dense_by_default).is_dense(weights) is is_dense


def test_platform_packs_int8_weights_for_its_device() -> None:
    loaded = {"module": {"w": weight((16, 8), groups=1)}}
    params = platform().prepare(loaded, jnp.bfloat16, dense=False)
    assert set(params) == {"packed"}
    packed: Any = params["packed"]["w"]
    assert packed.dtype == jnp.bfloat16


def test_platform_dequantizes_dense_weights_instead_of_packing() -> None:
    quantized = weight((16, 8), groups=2)
    expected = reference.dequantised(quantized)
    params = platform().prepare({"module": {"w": quantized}}, jnp.float32, dense=True)
    assert set(params) == {"module"}
    np.testing.assert_array_equal(params["module"]["w"], expected)  # type: ignore[arg-type]


def test_jitted_kernels_are_traced_once_for_all_layers() -> None:
    traces: list[str] = []

    def grouped_ffn(x: Any, chosen: Any, experts: Any) -> Any:
        traces.append("ffn")
        return x, chosen

    def attend(q: Any, keys: Any, values: Any, placement: Any, multiplier: float) -> Any:
        traces.append(f"attend {multiplier}")
        return q * multiplier

    def route(x: Any, w: Any, real: Any, chosen: int) -> Any:
        traces.append(f"route {chosen}")
        return x, real

    def attention_inputs(x: Any, weights: Any, keys: Any, values: Any, placement: Any) -> Any:
        traces.append("inputs")
        return x, keys, values

    def project(x: Any, weight: Any) -> Any:
        traces.append("project")
        return x

    def add_and_norm(h: Any, update: Any, update_scale: Any, scale: Any) -> Any:
        traces.append("norm")
        return h, update

    kernels = Kernels.jitted(route, grouped_ffn, attend, attention_inputs, project, add_and_norm)
    x, chosen = jnp.ones((4, 2)), jnp.zeros((4, 1), jnp.int32)
    q = jnp.ones((1, 1, 2, 2))
    for _ in range(3):
        kernels.route(x, x, chosen, 2)  # type: ignore[arg-type]
        kernels.grouped_ffn(x, chosen, (x, x, x))
        kernels.attend(q, q, q, None, 0.5)  # type: ignore[arg-type]
        kernels.attention_inputs(q, (x, x, x), q, q, None)  # type: ignore[arg-type]
        kernels.project(x, x)
        kernels.add_and_norm(x, x, x, x)
    assert traces == ["route 2", "ffn", "attend 0.5", "inputs", "project", "norm"]
