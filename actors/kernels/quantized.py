"""Int8 weights with grouped scales, and their plain ("dense") counterparts.

Input: activations and a weight in either form. Output: products in float32. A group of scales
covers an equal share of the rows of the contracted axis. Knows nothing of layers, names or meshes,
except that `densify` keeps an array where it lies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, BFloat16, Float, Int8

from actors.protocol.errors import ModelError

PARTS = 4  # that a float32 sum over int8 rows has at least on CPUs, see `_int8_dot`


class QuantizedWeight(NamedTuple):
    """A weight stored as int8: row k, column n stands for weight[…, k, n] x scales[…, k // (K / G), n]."""

    weight: Int8[Array, "*stack K N"]
    scales: BFloat16[Array, "*stack G N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight it stands for."""
        return tuple(self.weight.shape)


class TransposedWeight(NamedTuple):
    """One dense matrix with the contracted axis last, so that a product of few rows reads it as it lies in memory."""

    weight: Float[Array, "N K"]


class DenseExperts(NamedTuple):
    """The experts' weights as separate, transposed arrays: a slice of a stacked array inside a loop would be copied first."""

    experts: tuple[Float[Array, "N K"], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stacked weight it stands for, (E, K, N)."""
        columns, rows = self.experts[0].shape
        return (len(self.experts), rows, columns)


class TransposedExperts(NamedTuple):
    """The experts' int8 weights with the contracted axis last: bytes that a GPU's product takes together lie side by side."""

    weight: Int8[Array, "E N K"]
    scales: BFloat16[Array, "E G N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stacked weight it stands for, (E, K, N)."""
        experts, columns, rows = self.weight.shape
        return (experts, rows, columns)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("weight", "scales"),
    meta_fields=("shape", "instructions"),
)
@dataclass(frozen=True)
class PackedExperts:
    """The experts' int8 weights in the order in which a CPU's kernel reads them, see kernels/cpu_tiles.py."""

    # Any: trees of shapes and of PartitionSpecs take this form, too. int8 [E, P, S, W]: P panels of
    # columns, S steps of the contracted axis, W bytes of a panel in a step
    weight: Any
    scales: Any  # float32 [E, P, G, C], for the C columns of a panel
    shape: tuple[int, ...]  # of the stacked weight it stands for on one device, (E, K, N)
    instructions: str  # the instruction set it is packed for


MatrixWeight = Float[Array, "_ _"] | QuantizedWeight | TransposedWeight  # one matrix, in any form
Weight = Float[Array, "..."] | QuantizedWeight | DenseExperts | TransposedExperts | PackedExperts
Params = Mapping[str, Mapping[str, Weight]]  # Haiku module -> parameter name -> weight


def dot(x: Float[Array, "*rows K"], w_KN: Float[Array, "K N"]) -> Float[Array, "*rows N"]:
    """Returns x · w in float32.

    Float32 inputs are multiplied exactly, never through TensorFloat-32.
    """
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    # bfloat16 products with float32 output are also two to four times faster on CPUs that have them
    return jnp.dot(x, w_KN, precision=precision, preferred_element_type=jnp.float32)


def matmul(x: Float[Array, "*rows K"], weight: MatrixWeight) -> Float[Array, "*rows N"]:
    """Returns x · weight in float32.

    `x` may be bfloat16 or float32, a dense weight must have the type of `x`.

    Int8 is exact in both types and the scales are applied to float32 sums, so no weight is ever
    rounded: this is the reading of dequantisation that the reference shows when XLA compiles it.
    """
    if isinstance(weight, TransposedWeight):
        return _transposed_dot(x, weight.weight)
    if not isinstance(weight, QuantizedWeight):
        return dot(x, weight)
    # grok-1: its int8 product drops the leading dimensions and is right for a batch of one only;
    # here any number of rows
    groups = weight.scales.shape[-2]
    product = partial(_int8_dot, parts=-(-PARTS // groups))
    rows = weight.weight.shape[-2] // groups
    total: Array | None = None
    for group in range(groups):
        part = slice(group * rows, (group + 1) * rows)
        scaled = product(x[..., part], weight.weight[part]) * _row(weight.scales[group], x.ndim)
        total = scaled if total is None else total + scaled
    assert total is not None  # a weight has at least one group
    return total


def _int8_dot(
    x: Float[Array, "*rows K"], w_KN: Int8[Array, "K N"], parts: int
) -> Float[Array, "*rows N"]:
    """Returns `dot` of x and the numbers in `w_KN`.

    Float32 on CPUs as the sum of the products of `parts` runs of rows.

    XLA's product for CPUs adds a sum's terms one after the other and rounds each time: four shorter
    sums keep half the error.
    """
    rows, columns = w_KN.shape

    def whole(x: Array, w_KN: Array) -> Array:
        return dot(x, w_KN.astype(x.dtype))

    def in_parts(x: Array, w_KN: Array) -> Array:
        x_PK = x.reshape(*x.shape[:-1], parts, rows // parts)
        w_PKN = w_KN.astype(x.dtype).reshape(parts, rows // parts, columns)
        return jnp.einsum("...pk,pkn->...pn", x_PK, w_PKN, precision=jax.lax.Precision.HIGHEST).sum(
            -2
        )

    if x.dtype != jnp.float32 or rows % parts:
        return whole(x, w_KN)
    result: Array = jax.lax.platform_dependent(x, w_KN, cpu=in_parts, default=whole)
    return result


def _transposed_dot(
    x: Float[Array, "*rows K"], w_NK: Float[Array, "N K"]
) -> Float[Array, "*rows N"]:
    """Returns `dot` of x and the transpose of `w_NK`.

    The CPU library repacks its second operand on every call, which costs more than a product of few
    rows itself. So `x` is second, but where the weight's rows are short: read first, they come in
    too many streams (docs/benchmarks/engine-cpu.md).
    """
    columns, rows = w_NK.shape
    if rows > columns:
        return jnp.moveaxis(_dot_last(w_NK, x), 0, -1)
    return _dot_last(x, w_NK)


def _dot_last(x: Float[Array, "*rows K"], y: Float[Array, "*columns K"]) -> Float[Array, "..."]:
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    axes = (((x.ndim - 1,), (y.ndim - 1,)), ((), ()))
    return jax.lax.dot_general(x, y, axes, precision=precision, preferred_element_type=jnp.float32)


def _row(scales_N: Array, ndim: int) -> Array:
    return scales_N.astype(jnp.float32).reshape((1,) * (ndim - 1) + scales_N.shape)


def expert(weight: Weight, index: int) -> MatrixWeight:
    """Returns the weight of one expert."""
    if isinstance(weight, QuantizedWeight):
        return QuantizedWeight(weight.weight[index], weight.scales[index])
    if isinstance(weight, DenseExperts):
        return TransposedWeight(weight.experts[index])
    if isinstance(weight, TransposedExperts):
        return QuantizedWeight(weight.weight[index].T, weight.scales[index])
    if isinstance(weight, PackedExperts):
        raise ModelError(
            f"experts packed for {weight.instructions} are read by kernels/cpu_experts.py; "
            "expected weights as loaded"
        )
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

    Stacked experts become `DenseExperts`, the embedding table takes `dtype`; norm scales and
    routers stay float32. The tree of names does not change. Arrays that lie on a mesh stay split as
    they were; inside `shard_map` it works on the local shards.
    """
    return {
        module: {name: densified(name, value, jnp.dtype(dtype)) for name, value in entries.items()}
        for module, entries in params.items()
    }


def densified(name: str, value: Weight, dtype: jnp.dtype) -> Weight:
    """Returns one parameter as `densify` leaves it."""
    if isinstance(value, QuantizedWeight):
        return _densify_weight(value, dtype)
    return _cast_table(name, value, dtype)


def _cast_table(name: str, value: Weight, dtype: jnp.dtype) -> Weight:
    if name == "embeddings" and isinstance(value, jax.Array):
        return value.astype(dtype)
    return value


def _densify_weight(value: QuantizedWeight, dtype: jnp.dtype) -> Weight:
    if any(isinstance(part, jax.core.Tracer) for part in value):
        return _split(value, dtype)  # inside shard_map
    sharding, scales_sharding = value.weight.sharding, value.scales.sharding
    if not isinstance(sharding, NamedSharding) or not isinstance(scales_sharding, NamedSharding):
        return _split(value, dtype)
    return _densify_on_mesh(
        sharding.mesh, sharding.spec, scales_sharding.spec, value.weight.ndim, dtype
    )(value)


@lru_cache
def _densify_on_mesh(
    mesh: Mesh, spec: Any, scales_spec: Any, ndim: int, dtype: jnp.dtype
) -> Callable[[QuantizedWeight], Weight]:
    """Returns the compiled dequantisation of weights split like this: each device turns its own rows and columns."""
    split: list[str | None] = [*spec, *[None] * (ndim - len(spec))]
    *stack, rows, columns = split
    out_spec = PartitionSpec(columns, rows) if stack else PartitionSpec(rows, columns)
    mapped = jax.shard_map(
        partial(_split, dtype=dtype),
        mesh=mesh,
        in_specs=(QuantizedWeight(spec, scales_spec),),
        out_specs=out_spec,
    )
    # named explicitly: on one device jit would simplify the sharding to "replicated", and its spec
    # would be lost
    return jax.jit(mapped, out_shardings=NamedSharding(mesh, out_spec))


def _split(value: QuantizedWeight, dtype: jnp.dtype) -> Weight:
    if value.weight.ndim == 2:
        return dequantize(value, dtype)
    return DenseExperts(
        tuple(dequantize(QuantizedWeight(w, s), dtype).T for w, s in zip(*value, strict=True))
    )


def arrange(params: Params, dtype: DTypeLike) -> dict[str, dict[str, Weight]]:
    """Returns int8 parameters as the kernels of a GPU read them: experts as `TransposedExperts`, the embedding table in `dtype`.

    Takes the parameters over: arrays that it replaces are deleted one by one, so that a device
    holds hardly more than one copy.
    """
    return {
        module: {
            name: _arrange_one(name, value, jnp.dtype(dtype)) for name, value in entries.items()
        }
        for module, entries in params.items()
    }


def _arrange_one(name: str, value: Weight, dtype: jnp.dtype) -> Weight:
    if isinstance(value, QuantizedWeight) and value.weight.ndim == 3:
        return TransposedExperts(
            _replaced(value.weight, _transpose_on(value.weight.sharding)), value.scales
        )
    if name == "embeddings" and isinstance(value, jax.Array) and value.dtype != dtype:
        return _replaced(value, lambda table: table.astype(dtype))
    return value


def _replaced(old: Array, make: Callable[[Array], Array]) -> Array:
    new = jax.block_until_ready(make(old))
    old.delete()
    return new


@lru_cache
def _transpose_on(sharding: Any) -> Callable[[Array], Array]:
    """Returns the compiled exchange of the last two axes, for arrays that lie like this."""
    if not isinstance(sharding, NamedSharding):
        return jax.jit(jnp.matrix_transpose)
    return jax.jit(
        jnp.matrix_transpose,
        out_shardings=NamedSharding(sharding.mesh, transposed_spec(sharding.spec)),
    )


def transposed_spec(spec: PartitionSpec) -> PartitionSpec:
    """Returns how a stacked weight [E, K, N] that is split by `spec` is split once it is [E, N, K]."""
    axes = [*spec, *(None,) * (3 - len(spec))]
    return PartitionSpec(axes[0], axes[2], axes[1])
