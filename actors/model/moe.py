"""Mixture of experts: every token is computed by its two chosen experts and by no other.

Returns the gated sum of the chosen experts, after one all-reduce over "model". `actors/kernels`
runs the chosen experts.
"""

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from actors.kernels.interface import Kernels
from actors.model.config import ModelConfig
from actors.model.layers import add_up, weight_parameter


class Router(hk.Module):
    """Chooses the experts of each token; float32 throughout."""

    def __init__(self, config: ModelConfig, kernels: Kernels, name: str) -> None:
        super().__init__(name=name)
        self.config = config
        self.kernels = kernels

    def __call__(
        self, x_ND: Float[Array, "N D"], real_N: Bool[Array, " N"]
    ) -> tuple[Float[Array, "N X"], Int[Array, "N X"]]:
        """Returns gates and ids of the chosen experts, best first; ties go to the lower id.

        The gates are the chosen ones of a softmax over all experts and are not renormalised: they
        sum to less than one. Padding (`real_N` is false) chooses no expert: its ids are E.
        """
        w_DE = hk.get_parameter("w", (self.config.emb_size, self.config.num_experts), jnp.float32)
        return self.kernels.route(x_ND, w_DE, real_N, self.config.num_selected_experts)


class MoE(hk.Module):
    """This device's columns of all experts, run on the tokens that chose them."""

    def __init__(
        self, config: ModelConfig, model_shards: int, kernels: Kernels, name: str, split: int = 1
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.kernels = kernels
        self.split = split  # devices that hold the columns of the result
        self.ffn_width = config.ffn_size // model_shards

    def __call__(
        self,
        x_ND: Float[Array, "N D"],
        gates_NX: Float[Array, "N X"],
        chosen_NX: Int[Array, "N X"],
        real_N: Bool[Array, " N"],
    ) -> Float[Array, "N W"]:
        """Returns the sum over the chosen experts of gate x expert(x).

        Zero where `real_N` is false: padding, which chooses no expert (ids E) and costs none.
        """
        experts = self.config.num_experts
        width = self.config.emb_size
        weights = (
            weight_parameter("linear", (experts, width, self.ffn_width), x_ND.dtype),
            weight_parameter("linear_v", (experts, width, self.ffn_width), x_ND.dtype),
            weight_parameter("linear_1", (experts, self.ffn_width, width), x_ND.dtype),
        )

        # grok-1: runs every token through all experts and keeps the chosen results; here only the
        # chosen experts run
        rows_AD, place_NX = self.kernels.grouped_ffn(x_ND, chosen_NX, weights)
        chosen_rows_NXD = jnp.where(real_N[:, None, None], rows_AD[place_NX], 0)
        # grok-1: sums in bfloat16 whatever the activations are; here in float32, then rounded once
        # to their type
        gated_NXD = chosen_rows_NXD.astype(jnp.float32) * gates_NX[..., None]
        local_ND = jnp.sum(gated_NXD, axis=1).astype(x_ND.dtype)
        return add_up(local_ND, self.split)
