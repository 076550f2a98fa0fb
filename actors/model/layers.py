"""Layers that both blocks share: RMS norm, weights, the tied embedding.

Written for one device: arrays are its shards, sizes its sizes. The residual stream is replicated on
every device of the axis "model" (`split` = 1), or each of its `split` devices holds W = D / split
columns, in order.
"""

from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from actors.kernels.cpu.layout import PackedTable
from actors.kernels.cpu.projections import logits
from actors.kernels.interface import Kernels, Param
from actors.kernels.quantized import dot
from actors.kernels.xla.norms import rms_norm, scale_rows


def add_up(x: Float[Array, "*rows D"], split: int) -> Float[Array, "*rows W"]:
    """Returns the sum of all devices' `x`, or this device's columns of it.

    One all-reduce, or one reduce-scatter.
    """
    if split == 1:
        return jax.lax.psum(x, "model")
    return jax.lax.psum_scatter(x, "model", scatter_dimension=x.ndim - 1, tiled=True)


def all_columns(x: Float[Array, "*rows W"], split: int) -> Float[Array, "*rows D"]:
    """Returns all columns of rows that are split over devices: one all-gather if they are."""
    if split == 1:
        return x
    return jax.lax.all_gather(x, "model", axis=x.ndim - 1, tiled=True)


class RMSNorm(hk.Module):
    """Divides by the root mean square over the last axis and multiplies by a learned scale.

    Float32 inside.
    """

    def __init__(self, name: str, split: int = 1) -> None:
        super().__init__(name=name)
        self.split = split

    def __call__(self, x: Float[Array, "*rows W"]) -> Float[Array, "*rows W"]:
        """Returns the normalised `x`, in its type.

        Split rows cost one all-reduce, of one float32 number per row.
        """
        width = x.shape[-1] * self.split
        scale_D = self.scale(width)
        if self.split == 1:
            return rms_norm(x, scale_D)

        local_sum = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        mean_square = jax.lax.psum(local_sum, "model") / width
        first_column = jax.lax.axis_index("model") * x.shape[-1]
        scale_W = jax.lax.dynamic_slice_in_dim(scale_D, first_column, x.shape[-1])
        return scale_rows(x, mean_square, scale_W)

    @hk.experimental.name_like("__call__")
    def scale(self, width: int) -> Float[Array, " D"]:
        """Returns the learned scale of all `width` columns."""
        return hk.get_parameter("scale", (width,), jnp.float32)


class Update(NamedTuple):
    """A block's result that is not yet normed and added to the residual stream."""

    result_BTW: Float[Array, "B T W"]
    norm: RMSNorm  # of the result, before it is added


def add_update(h_BTW: Float[Array, "B T W"], update: Update | None) -> Float[Array, "B T W"]:
    """Returns the residual stream with the normed update, if there is one."""
    if update is None:
        return h_BTW
    return h_BTW + update.norm(update.result_BTW)


def add_and_norm(
    h_BTW: Float[Array, "B T W"],
    update: Update | None,
    norm: RMSNorm,
    kernels: Kernels,
    split: int,
) -> tuple[Float[Array, "B T W"], Float[Array, "B T D"]]:
    """Returns the residual stream with the normed update, and the stream's norm.

    One kernel, unless the stream is split or there is no update.

    Args:
        h_BTW: the residual stream.
        update: result of the last block; None ahead of the first one.
        norm: of the sum. Columns of a split stream are gathered before a norm of all columns, not
            after: the same bytes, and no all-reduce for the norm.
        kernels: implementation of the kernel.
        split: devices that hold the columns of the stream.
    """
    if update is not None and split == 1:
        width = h_BTW.shape[-1]
        return kernels.add_and_norm(
            h_BTW, update.result_BTW, update.norm.scale(width), norm.scale(width)
        )

    h_BTW = add_update(h_BTW, update)
    if norm.split == split:
        return h_BTW, norm(h_BTW)
    return h_BTW, norm(all_columns(h_BTW, split))


class _Weight(hk.Module):
    """Holds one weight under its name in the checkpoint."""

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike) -> Param:
        weight: Param = hk.get_parameter("w", shape, dtype)
        return weight


def weight_parameter(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    """Returns a weight of the module that calls: dense in `dtype`, or int8."""
    return _Weight(name=name)(shape, dtype)


class InOutEmbed(hk.Module):
    """The embedding table, split over "model" by rows of the vocabulary.

    The same table reads tokens and writes logits.
    """

    def __init__(self, rows: int, width: int, name: str) -> None:
        super().__init__(name=name)
        self.rows = rows  # of this device
        self.width = width

    def encode(
        self, tokens_BT: Int[Array, "B T"], dtype: DTypeLike, split: int = 1
    ) -> Float[Array, "B T W"]:
        """Returns the tokens' rows.

        One collective over "model": each row lies on one device, the others add zeros.
        """
        table = self._table()
        table_UD = table.rows if isinstance(table, PackedTable) else table
        local_BT = tokens_BT - jax.lax.axis_index("model") * self.rows
        is_local_BT = (local_BT >= 0) & (local_BT < self.rows)
        rows_BTD = table_UD[jnp.clip(local_BT, 0, self.rows - 1)].astype(dtype)
        return add_up(jnp.where(is_local_BT[..., None], rows_BTD, 0), split)

    def decode(self, hidden_ND: Float[Array, "N D"]) -> Float[Array, "N U"]:
        """Returns the products with this device's rows of the table, float32."""
        table = self._table()
        if isinstance(table, PackedTable):
            return logits(hidden_ND, table)
        return dot(hidden_ND, table.astype(hidden_ND.dtype).T)

    def _table(self) -> Any:
        return hk.get_parameter("embeddings", (self.rows, self.width), jnp.float32)
