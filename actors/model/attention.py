"""Grouped-query attention over pages of cached keys and values.

Takes the normed activations of new tokens and the pages; returns the block's result and the pages
with the new rows written. `actors/kernels` computes the attention itself.

Positions of one sequence, page size Z = 4, start = 5 tokens cached, count = 2 new ones:

    page table      pages[b, 0]   pages[b, 1]
    position        0  1  2  3    4  5  6  7
                    cached ─────────▶ new▶ ·      · : unused, never reaches a result
    query at 5      ✓  ✓  ✓  ✓    ✓  ✓  ✗  ✗      and ✗ wherever the token is 0 (pad)
"""

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from actors.kernels.interface import Kernels, Pages, Placement
from actors.kernels.xla.attention import bits
from actors.model.config import ModelConfig
from actors.model.layers import Linear, add_up, rotate


class MultiHeadAttention(hk.Module):
    """Attention of new tokens to all visible tokens of their sequences, for this device's heads."""

    def __init__(
        self, config: ModelConfig, model_shards: int, kernels: Kernels, name: str, split: int = 1
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.kernels = kernels
        self.split = split  # devices that hold the columns of the result
        self.kv_heads = config.num_kv_heads // model_shards
        self.q_heads = config.num_q_heads // model_shards

    def __call__(
        self, x_BTD: Float[Array, "B T D"], keys: Pages, values: Pages, placement: Placement
    ) -> tuple[Float[Array, "B T W"], Pages, Pages]:
        """Returns this block's output, summed over "model", and the pages with the new rows."""
        q_BTHC = rotate(self._project(x_BTD, self.q_heads, "query"), placement.positions_BT)
        k_BTKC = rotate(self._project(x_BTD, self.kv_heads, "key"), placement.positions_BT)
        v_BTKC = self._project(x_BTD, self.kv_heads, "value")
        keys = write_rows(keys, k_BTKC, placement)
        values = write_rows(values, v_BTKC, placement)
        out_BTHC = self.kernels.attend(
            q_BTHC, keys, values, placement, self.config.attn_output_multiplier
        )
        merged = out_BTHC.reshape(*x_BTD.shape[:2], self.q_heads * self.config.key_size)
        y_BTD = Linear(self.config.emb_size, name="linear")(merged)
        return add_up(y_BTD, self.split), keys, values

    @hk.experimental.name_like("__call__")  # parameter names must not show that this is a method
    def _project(
        self, x_BTD: Float[Array, "B T D"], heads: int, name: str
    ) -> Float[Array, "B T heads C"]:
        flat = Linear(heads * self.config.key_size, name=name)(x_BTD)
        return flat.reshape(*x_BTD.shape[:2], heads, self.config.key_size)


def write_rows(
    pages_PZKC: Pages, rows_BTKC: Float[Array, "B T K C"], placement: Placement
) -> Pages:
    """Returns the pages with the new rows in place; rows of padding tokens are dropped."""
    p, z, k, c = pages_PZKC.shape
    row_N = (placement.page_BT * z + placement.offset_BT).reshape(-1)  # of padding: beyond the last
    if pages_PZKC.dtype == jnp.uint16:
        stored_BTKC = bits(rows_BTKC)
    else:
        stored_BTKC = rows_BTKC.astype(pages_PZKC.dtype)

    # one index per row: with an index of two parts XLA for CPUs takes about four times as long
    flat_RW = pages_PZKC.reshape(p * z, k * c)
    written_RW = flat_RW.at[row_N].set(stored_BTKC.reshape(-1, k * c), mode="drop")
    return written_RW.reshape(p, z, k, c)
