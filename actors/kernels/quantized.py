"""Int8 weights with grouped scales, as a checkpoint holds them, and products with them.

A group of scales covers an equal share of the rows of the contracted axis. Does not depend on
layers, names, meshes or on the layout that a platform stores weights in.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, BFloat16, Float, Int8

# Least number of partial sums of a float32 product over int8 rows on CPUs, see `_int8_dot`.
PARTIAL_SUMS = 4


class QuantizedWeight(NamedTuple):
    """A weight stored as int8: weight[…, k, n] x scales[…, k // (K / G), n] at row k, column n."""

    weight: Int8[Array, "*stack K N"]
    scales: BFloat16[Array, "*stack G N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        return tuple(self.weight.shape)

    def expert(self, index: int) -> "QuantizedWeight":
        """Returns the matrix of one expert of a stacked weight."""
        return QuantizedWeight(self.weight[index], self.scales[index])


MatrixWeight = Float[Array, "_ _"] | QuantizedWeight
LoadedWeight = Float[Array, "..."] | QuantizedWeight
# Haiku module -> parameter name -> weight, as a checkpoint is loaded
LoadedParams = Mapping[str, Mapping[str, LoadedWeight]]


def dot(x: Float[Array, "*rows K"], w_KN: Float[Array, "K N"]) -> Float[Array, "*rows N"]:
    """Returns x · w in float32.

    Float32 inputs are multiplied exactly, never through TensorFloat-32.
    """
    # bfloat16 products with float32 output are also two to four times faster on CPUs that have them
    return jnp.dot(x, w_KN, precision=product_precision(x), preferred_element_type=jnp.float32)


def product_precision(x: Array) -> jax.lax.Precision | None:
    """Returns the precision with which XLA multiplies numbers of the type of `x` exactly."""
    if x.dtype == jnp.float32:
        return jax.lax.Precision.HIGHEST
    return None


def matmul(x: Float[Array, "*rows K"], weight: MatrixWeight) -> Float[Array, "*rows N"]:
    """Returns x · weight in float32.

    `x` may be bfloat16 or float32, a dense weight must have the type of `x`.

    Int8 is exact in both types and the scales are applied to float32 sums, so no weight is ever
    rounded: this is the reading of dequantisation that the reference shows when XLA compiles it.
    """
    if not isinstance(weight, QuantizedWeight):
        return dot(x, weight)

    # grok-1: its int8 product drops the leading dimensions and is right for a batch of one only;
    # here any number of rows
    groups = weight.scales.shape[-2]
    group_rows = weight.weight.shape[-2] // groups
    partial_sums = -(-PARTIAL_SUMS // groups)
    total: Array | None = None

    for group in range(groups):
        rows = slice(group * group_rows, (group + 1) * group_rows)
        product = _int8_dot(x[..., rows], weight.weight[rows], partial_sums)
        scaled = product * _broadcast_scales(weight.scales[group], x.ndim)
        total = scaled if total is None else total + scaled

    assert total is not None  # a weight has at least one group
    return total


def _int8_dot(
    x: Float[Array, "*rows K"], w_KN: Int8[Array, "K N"], partial_sums: int
) -> Float[Array, "*rows N"]:
    """Returns `dot` of x and the numbers in `w_KN`; float32 on CPUs as `partial_sums` sums.

    XLA's product for CPUs adds a sum's terms one after the other and rounds each time: four shorter
    sums keep half the error.
    """
    rows, columns = w_KN.shape

    def single_sum(x: Array, w_KN: Array) -> Array:
        return dot(x, w_KN.astype(x.dtype))

    def several_sums(x: Array, w_KN: Array) -> Array:
        x_PK = x.reshape(*x.shape[:-1], partial_sums, rows // partial_sums)
        w_PKN = w_KN.astype(x.dtype).reshape(partial_sums, rows // partial_sums, columns)
        products = jnp.einsum("...pk,pkn->...pn", x_PK, w_PKN, precision=jax.lax.Precision.HIGHEST)
        return products.sum(-2)

    if x.dtype != jnp.float32 or rows % partial_sums:
        return single_sum(x, w_KN)
    product: Array = jax.lax.platform_dependent(x, w_KN, cpu=several_sums, default=single_sum)
    return product


def _broadcast_scales(scales_N: Array, ndim: int) -> Array:
    """Returns scales in float32, shaped for a product with `ndim` dimensions."""
    leading = (1,) * (ndim - 1)
    return scales_N.astype(jnp.float32).reshape(leading + scales_N.shape)


def dequantize(weight: QuantizedWeight, dtype: DTypeLike) -> Float[Array, "*stack K N"]:
    """Returns the dense array of a quantized weight: exact in float32, rounded to bfloat16."""
    *stack, rows, columns = weight.weight.shape
    groups = weight.scales.shape[-2]
    grouped = weight.weight.astype(jnp.float32).reshape(*stack, groups, rows // groups, columns)
    scaled = grouped * weight.scales.astype(jnp.float32)[..., None, :]
    return scaled.reshape(*stack, rows, columns).astype(dtype)
