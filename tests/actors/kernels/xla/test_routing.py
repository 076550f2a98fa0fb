"""The router in plain XLA: padding, and the types of its results."""

import jax.numpy as jnp
import numpy as np

from actors.kernels.xla.routing import route
from tests.actors.kernels.oracle import router_shares


def test_route_chooses_no_expert_for_padding() -> None:
    rng = np.random.default_rng(0)
    x_ND = rng.standard_normal((3, 4))
    w_DE = rng.standard_normal((4, 5)).astype(np.float32)
    real_N = jnp.array([True, False, True])
    x = jnp.asarray(x_ND, jnp.bfloat16)
    gates, ids = route(x, jnp.asarray(w_DE), real_N, 2)
    assert gates.dtype == jnp.float32
    shares_NE = router_shares(np.asarray(x.astype(jnp.float32)), w_DE)
    best = np.argsort(-shares_NE, axis=1)[:, :2]
    np.testing.assert_array_equal(ids, [best[0], [5, 5], best[2]])
    np.testing.assert_allclose(gates, np.take_along_axis(shares_NE, best, 1), rtol=1e-6)
