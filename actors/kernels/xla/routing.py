"""The router of a layer in plain XLA; float32 throughout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from actors.kernels.quantized import dot


def route(
    x_ND: Float[Array, "N D"], w_DE: Float[Array, "D E"], real_N: Bool[Array, " N"], chosen: int
) -> tuple[Float[Array, "N X"], Int[Array, "N X"]]:
    """Returns gates and ids of each token's experts; see `interface.Route`."""
    probabilities_NE = jax.nn.softmax(dot(x_ND.astype(jnp.float32), w_DE), axis=-1)
    gates_NX, chosen_NX = jax.lax.top_k(probabilities_NE, chosen)
    return gates_NX, jnp.where(real_N[:, None], chosen_NX, w_DE.shape[1])
