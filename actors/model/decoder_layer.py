"""One decoder layer: attention, then experts, each between two norms and added to the residual stream.

Input: the residual stream of new tokens and this layer's pages. Output: both, one layer further. Knows nothing of tokens.
"""

import haiku as hk
from jaxtyping import Array, Bool, Float

from actors.model.attention import MultiHeadAttention, Placement
from actors.model.config import ModelConfig
from actors.model.layers import RMSNorm
from actors.model.moe import MoE, Router


class DecoderLayer(hk.Module):
    """h += norm1(attention(norm0(h))), then h += norm3(moe(norm2(h)))."""

    def __init__(self, config: ModelConfig, model_shards: int, name: str) -> None:
        super().__init__(name=name)
        self.config = config
        self.model_shards = model_shards

    def __call__(
        self,
        h_BTD: Float[Array, "B T D"],
        keys: Float[Array, "P Z K C"],
        values: Float[Array, "P Z K C"],
        placement: Placement,
        real_BT: Bool[Array, "B T"],
    ) -> tuple[Float[Array, "B T D"], Float[Array, "P Z K C"], Float[Array, "P Z K C"]]:
        """Returns the residual stream after this layer and this layer's pages with the new rows."""
        attention = MultiHeadAttention(self.config, self.model_shards, name="multi_head_attention")
        attended, keys, values = attention(RMSNorm(name="rms_norm")(h_BTD), keys, values, placement)
        h_BTD = h_BTD + RMSNorm(name="rms_norm_1")(attended)
        x_ND = RMSNorm(name="rms_norm_2")(h_BTD).reshape(-1, h_BTD.shape[-1])
        gates_NX, chosen_NX = Router(self.config, name="router")(x_ND)
        mixed_ND = MoE(self.config, self.model_shards, name="moe")(x_ND, gates_NX, chosen_NX, real_BT.reshape(-1))
        h_BTD = h_BTD + RMSNorm(name="rms_norm_3")(mixed_ND).reshape(h_BTD.shape)
        return h_BTD, keys, values
