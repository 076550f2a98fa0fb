"""Grok-1's forward pass with float parameters and gradients, for training the demo model.

The engine's forward pass reads int8 weights and pages of a cache and runs experts in loops that
have no gradient. Here weights are float32, there is no cache, and each expert takes its tokens as
one matrix of a fixed number of rows. Names and shapes of the parameters are those of the checkpoint
(`actors.model.config.parameter_shapes`); a test compares both forward passes.

A row may contain several documents in sequence; `documents` numbers them, and attention is masked
between documents. Rotary positions may continue from one document to the next: attention depends on
their differences only.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from actors.kernels.quantized import dot
from actors.kernels.xla.norms import NORM_EPSILON
from actors.kernels.xla.projections import rotate
from actors.model.config import ModelConfig, parameter_shapes

FloatParams = Mapping[str, Mapping[str, Array]]  # Haiku module -> parameter name -> float32

ATTENTION_CAP = 30.0
HIDDEN = -1e30


class Forward(NamedTuple):
    """What a pass computes."""

    logits: Array  # [M, V] at the target positions, float32
    # mean over layers of E x sum over experts (share of the choices x mean probability); 1 if even
    imbalance: Array


def initial_params(config: ModelConfig, seed: int) -> dict[str, dict[str, Array]]:
    """Returns the initial parameters.

    Matrices have a variance of 1 / rows, the embedding has 1 after its multiplier.
    """
    params: dict[str, dict[str, Array]] = {}
    for number, tensor in enumerate(parameter_shapes(config)):
        if tensor.name == "scale":
            values = np.ones(tensor.shape, np.float32)
        else:
            deviation = tensor.shape[-2] ** -0.5
            if tensor.name == "embeddings":
                deviation = 1 / config.embedding_multiplier_scale
            generator = np.random.default_rng((seed, number))
            values = generator.standard_normal(tensor.shape, np.float32) * np.float32(deviation)
        params.setdefault(tensor.module, {})[tensor.name] = jnp.asarray(values)
    return params


def forward(
    params: FloatParams,
    config: ModelConfig,
    tokens_RT: Int[Array, "R T"],
    documents_RT: Int[Array, "R T"],
    target_M: Int[Array, " M"],
    expert_rows: int,
) -> Forward:
    """Runs rows of documents through the model.

    Args:
        params: the parameters.
        config: the model.
        tokens_RT: ids; 0 (pad) is never visible.
        documents_RT: which document of its row a token belongs to.
        target_M: positions in the flattened rows whose logits are returned.
        expert_rows: most tokens that one expert takes; those beyond miss its contribution. R x T
            takes all.
    """
    table_VD = params["language_model/in_out_embed"]["embeddings"]
    h_RTD = table_VD[tokens_RT] * config.embedding_multiplier_scale
    earlier_1TT = jnp.tril(jnp.ones((1, tokens_RT.shape[1], tokens_RT.shape[1]), bool))
    visible_RTT = (
        earlier_1TT
        & (documents_RT[:, :, None] == documents_RT[:, None, :])
        & (tokens_RT > 0)[:, None, :]
    )
    imbalance = jnp.zeros(())
    for number in range(config.num_layers):
        layer = f"transformer/decoder_layer_{number}"
        x_RTD = _norm(params, f"{layer}/rms_norm", h_RTD)
        attended_RTD = _attention(
            params, f"{layer}/multi_head_attention", config, x_RTD, visible_RTT
        )
        h_RTD = h_RTD + _norm(params, f"{layer}/rms_norm_1", attended_RTD)
        x_ND = _norm(params, f"{layer}/rms_norm_2", h_RTD).reshape(-1, config.emb_size)
        mixed_ND, uneven = _experts(
            params, layer, config, x_ND, (tokens_RT > 0).reshape(-1), expert_rows
        )
        h_RTD = h_RTD + _norm(params, f"{layer}/rms_norm_3", mixed_ND).reshape(h_RTD.shape)
        imbalance += uneven / config.num_layers
    hidden_MD = _norm(
        params, "language_model/rms_norm", h_RTD.reshape(-1, config.emb_size)[target_M]
    )
    return Forward(dot(hidden_MD, table_VD.T) * config.output_multiplier_scale, imbalance)


def _norm(params: FloatParams, module: str, x: Array) -> Array:
    scale = params[module]["scale"].reshape((1,) * (x.ndim - 1) + (-1,))
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + NORM_EPSILON) * scale


def _attention(
    params: FloatParams, module: str, config: ModelConfig, x_RTD: Array, visible_RTT: Array
) -> Array:
    rows, length, _ = x_RTD.shape

    def heads(name: str, count: int) -> Array:
        return dot(x_RTD, params[f"{module}/{name}"]["w"]).reshape(
            rows, length, count, config.key_size
        )

    positions_RT = jnp.broadcast_to(jnp.arange(length), (rows, length))
    q_RTHC = rotate(heads("query", config.num_q_heads), positions_RT)
    q_RTKGC = q_RTHC.reshape(rows, length, config.num_kv_heads, -1, config.key_size)
    k_RTKC = rotate(heads("key", config.num_kv_heads), positions_RT)
    v_RTKC = heads("value", config.num_kv_heads)
    scores_RKGTT = jnp.einsum("rtkgc,rskc->rkgts", q_RTKGC, k_RTKC) * config.attn_output_multiplier
    capped_RKGTT = ATTENTION_CAP * jnp.tanh(scores_RKGTT / ATTENTION_CAP)
    weights_RKGTT = jax.nn.softmax(jnp.where(visible_RTT[:, None, None], capped_RKGTT, HIDDEN))
    mixed_RTKGC = jnp.einsum("rkgts,rskc->rtkgc", weights_RKGTT, v_RTKC)
    return dot(mixed_RTKGC.reshape(rows, length, -1), params[f"{module}/linear"]["w"])


def _experts(
    params: FloatParams,
    layer: str,
    config: ModelConfig,
    x_ND: Array,
    real_N: Array,
    expert_rows: int,
) -> tuple[Array, Array]:
    """Returns the gated sum of the chosen experts, and how unevenly they were chosen.

    Padding chooses none.

    A choice (A = N x X of them, token by token) gets a row of its expert's matrix, S = E x
    `expert_rows` rows in all.
    """
    n = x_ND.shape[0]
    e = config.num_experts
    x = config.num_selected_experts
    probabilities_NE = jax.nn.softmax(dot(x_ND, params[f"{layer}/router"]["w"]))
    gates_NX, chosen_NX = jax.lax.top_k(probabilities_NE, x)
    chosen_A = chosen_NX.reshape(-1)
    real_A = jnp.repeat(real_N, x).astype(jnp.int32)
    picked_AE = jax.nn.one_hot(chosen_A, e, dtype=jnp.int32) * real_A[:, None]
    # of its expert's matrix
    row_A = jnp.sum((jnp.cumsum(picked_AE, axis=0) - 1) * picked_AE, axis=1)
    fits_A = (jnp.sum(picked_AE, axis=1) > 0) & (row_A < expert_rows)
    # beyond the last: none
    slot_A = jnp.where(fits_A, chosen_A * expert_rows + row_A, e * expert_rows)
    token_S = (
        jnp.full(e * expert_rows, n, jnp.int32)
        .at[slot_A]
        .set(jnp.arange(n * x, dtype=jnp.int32) // x, mode="drop")
    )
    x_ESD = x_ND.at[token_S].get(mode="fill", fill_value=0).reshape(e, expert_rows, -1)
    y_SD = jnp.concatenate([_expert(params, layer, number, x_ESD[number]) for number in range(e)])
    y_NXD = y_SD.at[slot_A].get(mode="fill", fill_value=0).reshape(n, x, -1)
    count_E = jnp.sum(picked_AE, axis=0).astype(jnp.float32)
    share_E = count_E / jnp.maximum(jnp.sum(picked_AE), 1).astype(jnp.float32)
    mean_E = jnp.mean(probabilities_NE, axis=0, where=real_N[:, None])
    return jnp.sum(y_NXD * gates_NX[..., None], axis=1), e * jnp.sum(share_E * mean_E)


def _expert(params: FloatParams, layer: str, number: int, x_SD: Array) -> Array:
    gate_DF = params[f"{layer}/moe/linear"]["w"][number]
    value_DF = params[f"{layer}/moe/linear_v"]["w"][number]
    out_FD = params[f"{layer}/moe/linear_1"]["w"][number]
    hidden_SF = jax.nn.gelu(dot(x_SD, gate_DF)) * dot(x_SD, value_DF)
    return dot(hidden_SF, out_FD)
