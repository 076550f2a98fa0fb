"""Repetition penalty: logits of tokens that a sequence has already, in its prompt or its completion, are made less likely.

Which those are is read off the cache, where the ids of all its tokens lie beside their keys:
nothing is sent to the device for it, and it is the same whatever slot, batch or replica a sequence
is in and however often it was interrupted. Runs inside `jax.shard_map`: the ids are on every device
of the "model" axis, and each marks those of the vocabulary rows it owns (U of V).
"""
# Source: Keskar et al., CTRL (arXiv:1909.05858), §4.1, with the sign that Hugging Face and vLLM
# give it: a negative logit is multiplied, so that a penalty above 1 always makes a token less
# likely.

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from actors.engine.vocabulary import first_id


def asked_for(penalty_B: Float[Array, " B"]) -> Bool[Array, ""]:
    """Returns whether any row has a penalty (1 is none).

    Devices of the model axis agree; those of the data axis need not.
    """
    return jnp.any(penalty_B != 1.0)


def seen_in_cache(
    tokens_PZ: Int[Array, "P Z"],
    pages_BJ: Int[Array, "B J"],
    length_B: Int[Array, " B"],
    width: int,
) -> Bool[Array, "B U"]:
    """Returns which of this device's `width` vocabulary rows are among the first `length_B` cached tokens of each sequence.

    Token 0 counts like any other: it is invisible to attention, not to whoever reads the text.
    """
    pages, page_size = tokens_PZ.shape
    ids_BS = tokens_PZ[jnp.clip(pages_BJ, 0, pages - 1)].reshape(pages_BJ.shape[0], -1)
    position_S = jnp.arange(pages_BJ.shape[1] * page_size, dtype=jnp.int32)
    none_BU = jnp.zeros((pages_BJ.shape[0], width), jnp.bool_)
    return _mark(none_BU, ids_BS, position_S[None, :] < length_B[:, None])


def also_seen(seen_BU: Bool[Array, "B U"], token_B: Int[Array, " B"]) -> Bool[Array, "B U"]:
    """Returns `seen_BU` with one more token of each sequence."""
    return _mark(seen_BU, token_B[:, None], jnp.ones((token_B.shape[0], 1), jnp.bool_))


def _mark(
    seen_BU: Bool[Array, "B U"], ids_BN: Int[Array, "B N"], real_BN: Bool[Array, "B N"]
) -> Bool[Array, "B U"]:
    rows, width = seen_BU.shape
    local_BN = ids_BN - first_id(seen_BU)
    mine_BN = real_BN & (local_BN >= 0) & (local_BN < width)
    # what is another device's goes to a column that does not exist: its write is dropped
    column_BN = jnp.where(mine_BN, local_BN, width)
    return seen_BU.at[jnp.arange(rows, dtype=jnp.int32)[:, None], column_BN].set(True, mode="drop")


def penalised(
    logits_BU: Float[Array, "B U"], seen_BU: Bool[Array, "B U"], penalty_B: Float[Array, " B"]
) -> Float[Array, "B U"]:
    """Divides positive logits of seen tokens by the row's penalty and multiplies negative ones.

    Penalty 1 changes no bit.
    """

    def apply(logits_BU: Float[Array, "B U"]) -> Float[Array, "B U"]:
        factor_B1 = penalty_B[:, None]
        return jnp.where(
            seen_BU,
            jnp.where(logits_BU > 0.0, logits_BU / factor_B1, logits_BU * factor_B1),
            logits_BU,
        )

    return jax.lax.cond(asked_for(penalty_B), apply, lambda x: x, logits_BU)
