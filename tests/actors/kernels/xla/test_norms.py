"""Norms of the residual stream in plain XLA, against float64."""

import jax.numpy as jnp
import numpy as np

from actors.kernels.xla.norms import add_and_norm, rms_norm
from tests.actors.kernels.oracle import exact_norm, norm_inputs


def test_rms_norm_matches_float64_with_epsilon_under_the_root() -> None:
    x_D = np.full(16, 1e-3, np.float32)
    scale_D = np.arange(16, dtype=np.float32)
    result_D = rms_norm(jnp.asarray(x_D), jnp.asarray(scale_D))
    np.testing.assert_allclose(result_D, exact_norm(x_D, scale_D), rtol=1e-6)


def test_add_and_norm_matches_float64() -> None:
    arrays = norm_inputs(rows=5, width=48, dtype="float32")
    h_BTD, update_BTD, update_scale_D, scale_D = map(np.asarray, arrays)
    expected_BTD = h_BTD + exact_norm(update_BTD, update_scale_D)

    sum_BTD, normed_BTD = add_and_norm(*arrays)

    np.testing.assert_allclose(sum_BTD, expected_BTD, atol=2e-6)
    np.testing.assert_allclose(normed_BTD, exact_norm(expected_BTD, scale_D), atol=5e-6)


def test_add_and_norm_rounds_the_sum_before_its_norm() -> None:
    arrays = norm_inputs(rows=5, width=48, dtype="bfloat16")
    sum_BTD, normed_BTD = add_and_norm(*arrays)
    assert sum_BTD.dtype == normed_BTD.dtype == jnp.bfloat16
    np.testing.assert_array_equal(normed_BTD, rms_norm(sum_BTD, arrays[3]))
