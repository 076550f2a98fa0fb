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
from jaxtyping import Array, Float

from actors.kernels.interface import Kernels, Pages, Placement
from actors.model.config import ModelConfig
from actors.model.layers import add_up, weight_parameter


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
        width = self.config.emb_size
        q_width = self.q_heads * self.config.key_size
        kv_width = self.kv_heads * self.config.key_size
        weights = (
            weight_parameter("query", (width, q_width), x_BTD.dtype),
            weight_parameter("key", (width, kv_width), x_BTD.dtype),
            weight_parameter("value", (width, kv_width), x_BTD.dtype),
        )
        q_BTHC, keys, values = self.kernels.attention_inputs(
            x_BTD, weights, keys, values, placement
        )
        out_BTHC = self.kernels.attend(
            q_BTHC, keys, values, placement, self.config.attn_output_multiplier
        )
        out_BTK = out_BTHC.reshape(*x_BTD.shape[:2], q_width)
        out_weight = weight_parameter("linear", (q_width, width), x_BTD.dtype)
        y_BTD = self.kernels.project(out_BTK, out_weight)
        return add_up(y_BTD, self.split), keys, values
