"""Int8 weights as the kernels of a GPU read them: experts with the contracted axis last."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, BFloat16, Float, Int8

from actors.kernels.quantized import LoadedParams, LoadedWeight, QuantizedWeight


class TransposedExperts(NamedTuple):
    """The experts' int8 weights with the contracted axis last.

    Bytes that a GPU's product takes together lie side by side.
    """

    weight: Int8[Array, "E N K"]
    scales: BFloat16[Array, "E G N"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense stacked weight, (E, K, N)."""
        experts, columns, rows = self.weight.shape
        return (experts, rows, columns)

    def expert(self, index: int) -> QuantizedWeight:
        """Returns the matrix of one expert."""
        return QuantizedWeight(self.weight[index].T, self.scales[index])


GpuWeight = Float[Array, "..."] | QuantizedWeight | TransposedExperts


def pack_for_device(params: LoadedParams, dtype: DTypeLike) -> dict[str, dict[str, GpuWeight]]:
    """Returns int8 parameters with experts as `TransposedExperts` and the embedding in `dtype`.

    Takes the parameters over: it deletes the arrays that it replaces one by one, so that a device
    holds hardly more than one copy.
    """
    packed: dict[str, dict[str, GpuWeight]] = {}
    for module, entries in params.items():
        packed[module] = {}
        for name, value in entries.items():
            packed[module][name] = _pack_param(name, value, jnp.dtype(dtype))
    return packed


def _pack_param(name: str, value: LoadedWeight, dtype: jnp.dtype) -> GpuWeight:
    if isinstance(value, QuantizedWeight) and value.weight.ndim == 3:
        transpose = _transposition(value.weight.sharding)
        return TransposedExperts(_replace(value.weight, transpose), value.scales)
    if name == "embeddings" and isinstance(value, jax.Array) and value.dtype != dtype:
        return _replace(value, lambda table: table.astype(dtype))
    return value


def _replace(old: Array, convert: Callable[[Array], Array]) -> Array:
    """Returns the converted array and deletes the old one."""
    new = jax.block_until_ready(convert(old))
    old.delete()
    return new


@lru_cache
def _transposition(sharding: Any) -> Callable[[Array], Array]:
    """Returns the compiled exchange of the last two axes of arrays with this sharding."""
    if not isinstance(sharding, NamedSharding):
        return jax.jit(jnp.matrix_transpose)
    out_sharding = NamedSharding(sharding.mesh, transposed_spec(sharding.spec))
    return jax.jit(jnp.matrix_transpose, out_shardings=out_sharding)


def transposed_spec(spec: PartitionSpec) -> PartitionSpec:
    """Returns the spec of a weight [E, N, K], given the spec of [E, K, N]."""
    unsplit = (None,) * (3 - len(spec))
    axes = [*spec, *unsplit]
    return PartitionSpec(axes[0], axes[2], axes[1])
