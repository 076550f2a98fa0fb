"""RMS norms in plain XLA; float32 inside."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NORM_EPSILON = 1e-5


def rms_norm(x: Float[Array, "*rows D"], scale_D: Float[Array, " D"]) -> Float[Array, "*rows D"]:
    """Returns the rows divided by their root mean squares and multiplied by `scale_D`."""
    mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return scale_rows(x, mean_square, scale_D)


def scale_rows(
    x: Float[Array, "*rows D"], mean_square: Float[Array, "*rows 1"], scale_D: Float[Array, " D"]
) -> Float[Array, "*rows D"]:
    """Returns the rows divided by the roots of `mean_square` and multiplied by `scale_D`."""
    normed = x.astype(jnp.float32) * jax.lax.rsqrt(mean_square + NORM_EPSILON)
    return (normed * scale_D.reshape((1,) * (x.ndim - 1) + scale_D.shape)).astype(x.dtype)


def add_and_norm(
    h_BTD: Float[Array, "B T D"],
    update_BTD: Float[Array, "B T D"],
    update_scale_D: Float[Array, " D"],
    scale_D: Float[Array, " D"],
) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
    """Returns h + norm(update), and the norm of that sum; see `interface.AddAndNorm`."""
    sum_BTD = h_BTD + rms_norm(update_BTD, update_scale_D)
    return sum_BTD, rms_norm(sum_BTD, scale_D)
