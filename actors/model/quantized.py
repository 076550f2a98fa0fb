"""Int8 weights with grouped scales, and their plain ("dense") counterparts.

Input: activations and a weight in either form. Output: products in float32. A group of scales covers an equal share of the
rows of the contracted axis. Knows nothing of layers, names or meshes, except that `densify` keeps an array where it lies.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, BFloat16, Float, Int8


class QuantizedWeight(NamedTuple):
    """A weight stored as int8: row k, column n stands for weight[…, k, n] x scales[…, k // (K / G), n]."""

    weight: Int8[Array, "*stack K N"]
    scales: BFloat16[Array, "*stack G N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight it stands for."""
        return tuple(self.weight.shape)


class DenseExperts(NamedTuple):
    """The experts' weights as separate arrays [K, N]: a slice of a stacked array inside a loop would be copied first."""

    experts: tuple[Float[Array, "K N"], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stacked weight it stands for, (E, K, N)."""
        return (len(self.experts), *self.experts[0].shape)


MatrixWeight = Float[Array, "_ _"] | QuantizedWeight  # one matrix, in either form
Weight = Float[Array, "..."] | QuantizedWeight | DenseExperts
Params = Mapping[str, Mapping[str, Weight]]  # Haiku module -> parameter name -> weight


def dot(x: Float[Array, "*rows K"], w_KN: Float[Array, "K N"]) -> Float[Array, "*rows N"]:
    """Returns x · w in float32. Float32 inputs are multiplied exactly, never through TensorFloat-32."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    # bfloat16 products with float32 output are also two to four times faster on CPUs that have them
    return jnp.dot(x, w_KN, precision=precision, preferred_element_type=jnp.float32)


def matmul(x: Float[Array, "*rows K"], weight: MatrixWeight) -> Float[Array, "*rows N"]:
    """Returns x · weight in float32; `x` may be bfloat16 or float32, a dense weight must have the type of `x`.

    Int8 is exact in both types and the scales are applied to float32 sums, so no weight is ever rounded: this is the reading
    of dequantisation that the reference shows when XLA compiles it.
    """
    if not isinstance(weight, QuantizedWeight):
        return dot(x, weight)
    # grok-1: its int8 product drops the leading dimensions and is right for a batch of one only; here any number of rows
    groups = weight.scales.shape[-2]
    rows = weight.weight.shape[-2] // groups
    total: Array | None = None
    for group in range(groups):
        part = slice(group * rows, (group + 1) * rows)
        product = dot(x[..., part], weight.weight[part].astype(x.dtype)) * _row(weight.scales[group], x.ndim)
        total = product if total is None else total + product
    assert total is not None  # a weight has at least one group
    return total


def _row(scales_N: Array, ndim: int) -> Array:
    return scales_N.astype(jnp.float32).reshape((1,) * (ndim - 1) + scales_N.shape)


def expert(weight: Weight, index: int) -> MatrixWeight:
    """Returns the weight of one expert."""
    if isinstance(weight, QuantizedWeight):
        return QuantizedWeight(weight.weight[index], weight.scales[index])
    if isinstance(weight, DenseExperts):
        return weight.experts[index]
    return weight[index]


def dequantize(weight: QuantizedWeight, dtype: DTypeLike) -> Float[Array, "*stack K N"]:
    """Returns the plain array a quantized weight stands for: exact in float32, rounded to nearest in bfloat16."""
    *stack, rows, columns = weight.weight.shape
    groups = weight.scales.shape[-2]
    grouped = weight.weight.astype(jnp.float32).reshape(*stack, groups, rows // groups, columns)
    scaled = grouped * weight.scales.astype(jnp.float32)[..., None, :]
    return scaled.reshape(*stack, rows, columns).astype(dtype)


def densify(params: Params, dtype: DTypeLike) -> dict[str, dict[str, Weight]]:
    """Returns the parameters with every int8 weight as plain arrays of `dtype`, so that no step dequantises again.

    Stacked experts become `DenseExperts`, the embedding table takes `dtype`; norm scales and routers stay float32. The tree of
    names does not change. Arrays that lie on a mesh stay split as they were; inside `shard_map` it works on the local shards.
    """
    return {
        module: {name: _densify_one(name, value, jnp.dtype(dtype)) for name, value in entries.items()}
        for module, entries in params.items()
    }


def _densify_one(name: str, value: Weight, dtype: jnp.dtype) -> Weight:
    if isinstance(value, QuantizedWeight):
        return _densify_weight(value, dtype)
    if name == "embeddings" and not isinstance(value, DenseExperts):
        return value.astype(dtype)
    return value


def _densify_weight(value: QuantizedWeight, dtype: jnp.dtype) -> Weight:
    if any(isinstance(part, jax.core.Tracer) for part in value):
        return _split(value, dtype)  # inside shard_map
    sharding, scales_sharding = value.weight.sharding, value.scales.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(scales_sharding, NamedSharding):
        return _split(value, dtype)
    return _densify_on_mesh(sharding.mesh, sharding.spec, scales_sharding.spec, value.weight.ndim, dtype)(value)


@lru_cache
def _densify_on_mesh(mesh: Mesh, spec: Any, scales_spec: Any, ndim: int, dtype: jnp.dtype) -> Callable[[QuantizedWeight], Weight]:
    """Returns the compiled dequantisation of weights split like this: each device turns its own rows and columns."""
    out_spec = PartitionSpec(*(*spec, *(None,) * (ndim - len(spec)))[-2:])
    mapped = jax.shard_map(
        partial(_split, dtype=dtype), mesh=mesh, in_specs=(QuantizedWeight(spec, scales_spec),), out_specs=out_spec
    )
    # named explicitly: on one device jit would simplify the sharding to "replicated", and its spec would be lost
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, out_spec))


def _split(value: QuantizedWeight, dtype: jnp.dtype) -> Weight:
    if value.weight.ndim == 2:
        return dequantize(value, dtype)
    return DenseExperts(tuple(dequantize(QuantizedWeight(w, s), dtype) for w, s in zip(*value, strict=True)))
