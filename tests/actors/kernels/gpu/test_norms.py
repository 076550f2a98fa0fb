"""The norm kernel of a GPU, run in the interpreter, against float64 and plain XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.gpu import norms as gpu_norms
from actors.kernels.xla import norms as xla_norms
from tests.actors.kernels.oracle import exact_norm, norm_inputs

on_gpu = jax.jit(partial(gpu_norms.add_and_norm, interpret=True))


@pytest.mark.parametrize(("rows", "width"), [(1, 64), (5, 48), (3, 700)])
def test_add_and_norm_matches_float64(rows: int, width: int) -> None:
    arrays = norm_inputs(rows, width, "float32")
    h_BTD, update_BTD, update_scale_D, scale_D = map(np.asarray, arrays)
    expected_BTD = h_BTD + exact_norm(update_BTD, update_scale_D)

    sum_BTD, normed_BTD = on_gpu(*arrays)

    assert sum_BTD.shape == normed_BTD.shape == h_BTD.shape
    np.testing.assert_allclose(sum_BTD, expected_BTD, atol=2e-6)
    np.testing.assert_allclose(normed_BTD, exact_norm(expected_BTD, scale_D), atol=5e-6)


def test_add_and_norm_rounds_bfloat16_where_plain_xla_does() -> None:
    """With squares that add up without rounding, both give the same bits."""
    h_BTD, _, update_scale_D, scale_D = norm_inputs(rows=6, width=48, dtype="bfloat16")
    signs = np.random.default_rng(1).choice([-1, 1], h_BTD.shape)
    update_BTD = jnp.asarray(2 * signs, jnp.bfloat16)

    sum_BTD, normed_BTD = on_gpu(h_BTD, update_BTD, update_scale_D, scale_D)

    xla_sum_BTD, _ = xla_norms.add_and_norm(h_BTD, update_BTD, update_scale_D, scale_D)
    assert sum_BTD.dtype == normed_BTD.dtype == jnp.bfloat16
    np.testing.assert_array_equal(sum_BTD, xla_sum_BTD)
    exact_BTD = exact_norm(np.asarray(sum_BTD, np.float32), np.asarray(scale_D))
    np.testing.assert_allclose(np.asarray(normed_BTD, np.float64), exact_BTD, rtol=2**-8)
