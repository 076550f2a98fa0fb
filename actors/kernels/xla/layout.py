"""Dense weights, as plain XLA multiplies with them: every int8 weight dequantized once, at load."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from actors.kernels.quantized import (
    LoadedParams,
    LoadedWeight,
    MatrixWeight,
    QuantizedWeight,
    dequantize,
    matmul,
    product_precision,
)


class TransposedWeight(NamedTuple):
    """One dense matrix with the contracted axis last, as products of few rows read it."""

    weight: Float[Array, "N K"]


class DenseExperts(NamedTuple):
    """The experts' weights as separate, transposed arrays.

    A slice of a stacked array inside a loop would be copied first.
    """

    experts: tuple[Float[Array, "N K"], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense stacked weight, (E, K, N)."""
        columns, rows = self.experts[0].shape
        return (len(self.experts), rows, columns)

    def expert(self, index: int) -> TransposedWeight:
        """Returns the matrix of one expert."""
        return TransposedWeight(self.experts[index])


ExpertMatrix = MatrixWeight | TransposedWeight
DenseWeight = Float[Array, "..."] | DenseExperts


def expert_matmul(x: Float[Array, "*rows K"], weight: ExpertMatrix) -> Float[Array, "*rows N"]:
    """Returns x · weight in float32, see `quantized.matmul`."""
    if isinstance(weight, TransposedWeight):
        return _transposed_dot(x, weight.weight)
    return matmul(x, weight)


def _transposed_dot(
    x: Float[Array, "*rows K"], w_NK: Float[Array, "N K"]
) -> Float[Array, "*rows N"]:
    """Returns `quantized.dot` of x and the transpose of `w_NK`.

    The CPU library repacks its second operand on every call, which costs more than a product of few
    rows itself. So `x` is second, except where the weight's rows are short: read first, they come
    in too many streams (docs/benchmarks/engine-cpu.md).
    """
    columns, rows = w_NK.shape
    if rows > columns:
        return jnp.moveaxis(_dot_last_axes(w_NK, x), 0, -1)
    return _dot_last_axes(x, w_NK)


def _dot_last_axes(
    x: Float[Array, "*rows K"], y: Float[Array, "*columns K"]
) -> Float[Array, "..."]:
    axes = (((x.ndim - 1,), (y.ndim - 1,)), ((), ()))
    return jax.lax.dot_general(
        x, y, axes, precision=product_precision(x), preferred_element_type=jnp.float32
    )


def keep_loaded_layout(
    params: LoadedParams, _dtype: DTypeLike
) -> dict[str, dict[str, LoadedWeight]]:
    """Returns int8 parameters as loaded: plain XLA dequantizes them in every product."""
    return {module: dict(entries) for module, entries in params.items()}


def dequantize_params(params: LoadedParams, dtype: DTypeLike) -> dict[str, dict[str, DenseWeight]]:
    """Returns the parameters with every int8 weight as dense arrays of `dtype`.

    Stacked experts become `DenseExperts`, the embedding table takes `dtype`; norm scales and
    routers stay float32. The tree of names does not change. Arrays that lie on a mesh stay split as
    they were; inside `shard_map` it works on the local shards.
    """
    dense: dict[str, dict[str, DenseWeight]] = {}
    for module, entries in params.items():
        dense[module] = {}
        for name, value in entries.items():
            dense[module][name] = dequantize_param(name, value, dtype)
    return dense


def dequantize_param(name: str, value: LoadedWeight, dtype: DTypeLike) -> DenseWeight:
    """Returns one parameter, see `dequantize_params`."""
    if isinstance(value, QuantizedWeight):
        return _dequantize_in_place(value, jnp.dtype(dtype))
    if name == "embeddings" and isinstance(value, jax.Array):
        return value.astype(dtype)
    return value


def _dequantize_in_place(value: QuantizedWeight, dtype: jnp.dtype) -> DenseWeight:
    """Returns the dense weight on the devices of the int8 weight."""
    inside_shard_map = any(isinstance(array, jax.core.Tracer) for array in value)
    if inside_shard_map:
        return _to_dense(value, dtype)

    sharding = value.weight.sharding
    scales_sharding = value.scales.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(scales_sharding, NamedSharding):
        return _to_dense(value, dtype)

    dequantize_on_mesh = _mesh_dequantizer(
        sharding.mesh, sharding.spec, scales_sharding.spec, value.weight.ndim, dtype
    )
    return dequantize_on_mesh(value)


@lru_cache
def _mesh_dequantizer(
    mesh: Mesh, spec: Any, scales_spec: Any, ndim: int, dtype: jnp.dtype
) -> Callable[[QuantizedWeight], DenseWeight]:
    """Returns the compiled dequantization of weights split by `spec`, each device its own shard."""
    unsplit = [None] * (ndim - len(spec))
    axes: list[str | None] = [*spec, *unsplit]
    *stack, rows, columns = axes
    out_spec = PartitionSpec(columns, rows) if stack else PartitionSpec(rows, columns)
    mapped = jax.shard_map(
        partial(_to_dense, dtype=dtype),
        mesh=mesh,
        in_specs=(QuantizedWeight(spec, scales_spec),),
        out_specs=out_spec,
    )
    # named explicitly: on one device jit would simplify the sharding to "replicated", and its spec
    # would be lost
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, out_spec))


def _to_dense(value: QuantizedWeight, dtype: jnp.dtype) -> DenseWeight:
    if value.weight.ndim == 2:
        return dequantize(value, dtype)
    experts = []
    for weight, scales in zip(*value, strict=True):
        experts.append(dequantize(QuantizedWeight(weight, scales), dtype).T)
    return DenseExperts(tuple(experts))
