"""One decoder layer: attention, then experts, each between two norms and added to the stream.

The residual stream is replicated on every device of the axis "model" (`split` = 1), or split over
`split` devices by columns:

    replicated
            h [B,T,D]   ─ norm ─ block ─ all-reduce ──────────────▶ [B,T,D] ─ norm ─▶ + h
    split
            h [B,T,D/m] ─ all-gather ─ norm ─ block ─ reduce-scatter ▶ [B,T,D/m] ─ norm ─▶ + h

The last norm of a split stream costs an all-reduce of B x T numbers.

A layer does not add its last update, norm3 of the experts' result: the next layer does, where it
computes its first norm, and the model's final norm after the last layer. Both norms are one kernel
on a GPU.
"""

import haiku as hk
from jaxtyping import Array, Bool, Float

from actors.kernels.interface import Kernels, Pages, Placement
from actors.model.attention import MultiHeadAttention
from actors.model.config import ModelConfig
from actors.model.layers import RMSNorm, Update, add_and_norm
from actors.model.moe import MoE, Router


class DecoderLayer(hk.Module):
    """h += norm1(attention(norm0(h))), then h += norm3(moe(norm2(h)))."""

    def __init__(
        self, config: ModelConfig, model_shards: int, kernels: Kernels, name: str, split: int = 1
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.model_shards = model_shards
        self.kernels = kernels
        self.split = split

    def __call__(
        self,
        h_BTW: Float[Array, "B T W"],
        update: Update | None,
        keys: Pages,
        values: Pages,
        placement: Placement,
        real_BT: Bool[Array, "B T"],
    ) -> tuple[Float[Array, "B T W"], Update, Pages, Pages]:
        """Returns the residual stream, this layer's update of it, and the pages with the new rows.

        Args:
            h_BTW: the residual stream without the last layer's update.
            update: of the last layer; None for the first one.
            keys: pages of this layer.
            values: pages of this layer.
            placement: positions of the new tokens.
            real_BT: false for padding.
        """
        split = self.split
        attention = MultiHeadAttention(
            self.config, self.model_shards, self.kernels, name="multi_head_attention", split=split
        )
        h_BTW, x_BTD = add_and_norm(h_BTW, update, RMSNorm(name="rms_norm"), self.kernels, split)
        attended_BTW, keys, values = attention(x_BTD, keys, values, placement)
        update = Update(attended_BTW, RMSNorm(name="rms_norm_1", split=split))

        h_BTW, x_BTD = add_and_norm(h_BTW, update, RMSNorm(name="rms_norm_2"), self.kernels, split)
        x_ND = x_BTD.reshape(-1, self.config.emb_size)
        real_N = real_BT.reshape(-1)
        gates_NX, chosen_NX = Router(self.config, self.kernels, name="router")(x_ND, real_N)
        moe = MoE(self.config, self.model_shards, self.kernels, name="moe", split=split)
        mixed_NW = moe(x_ND, gates_NX, chosen_NX, real_N)
        mixed_BTW = mixed_NW.reshape(h_BTW.shape)
        update = Update(mixed_BTW, RMSNorm(name="rms_norm_3", split=split))
        return h_BTW, update, keys, values
