"""Draws one token per row from logits over the whole vocabulary.

Pure functions of arrays; independent of mesh and cache.

A draw is a function of (seed of the sample, position in the completion, logits of the row) alone:
it does not depend on the slot, the batch, the replica or the try. The model's own log-probs are not
touched by anything here.

What is done to a row's logits, in vLLM's order: logits processors (logits/chain.py), EOS hidden,
temperature, min-p, top-k, top-p. Each filter works on what the former ones left, so that top-p is a
share of the mass that min-p and top-k let through. (Hugging Face takes min-p last: of one row with
both, its top-p is a share of more, and may keep more.) A greedy row is drawn before the
temperature: no filter changes its most likely token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

MASKED = -1e30  # finite: a row whose every token is masked must stay defined


class SamplingArrays(NamedTuple):
    """How each row is drawn."""

    temperature: Float[Array, " B"]  # 0: greedy
    top_p: Float[Array, " B"]  # 1: off
    top_k: Int[Array, " B"]  # 0: off
    min_p: Float[Array, " B"]  # 0: off
    seed: UInt32[Array, "B 2"]  # high and low word
    position: Int[Array, " B"]  # tokens drawn before
    eos_from: Int[Array, " B"]  # EOS may not be drawn before this many tokens


def mask_unlikely(
    logits_BV: Float[Array, "B V"], min_p_B: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Masks tokens that are less than `min_p` times as likely as the most likely one.

    Temperature has been applied before. The ratio of two probabilities is the difference of their
    logits: no softmax is needed.
    """
    # min_p 0: minus infinity
    least_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(min_p_B)[:, None]
    return jnp.where(logits_BV >= least_B1, logits_BV, MASKED)


def filter_logits(
    logits_BV: Float[Array, "B V"], top_k_B: Int[Array, " B"], top_p_B: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Masks all but the `top_k` most likely tokens, then all but the fewest with the mass `top_p`.

    Ties at a border are all kept. Temperature and min-p have been applied before.
    """
    vocabulary = logits_BV.shape[-1]
    sorted_BV = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
    rank_V = jnp.arange(vocabulary, dtype=jnp.int32)
    k_B = jnp.where(top_k_B > 0, jnp.minimum(top_k_B, vocabulary), vocabulary)
    # Equals of the k-th stay, and count in the mass that top_p is a share of: as a number of
    # tokens, not as a mask, because a mask of [B, V] is kept in memory until the last use.
    k_B = jnp.sum(
        sorted_BV >= jnp.take_along_axis(sorted_BV, k_B[:, None] - 1, axis=-1),
        axis=-1,
        dtype=jnp.int32,
    )
    kept_BV = jnp.where(rank_V[None, :] < k_B[:, None], sorted_BV, MASKED)
    probs_BV = jax.nn.softmax(kept_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    # A token stays when the mass of the more likely ones has not reached top_p; the first always
    # stays.
    inside_BV = (rank_V[None, :] < k_B[:, None]) & (
        (before_BV < top_p_B[:, None]) | (rank_V[None, :] == 0)
    )
    inside_BV = jnp.where((top_p_B < 1.0)[:, None], inside_BV, rank_V[None, :] < k_B[:, None])
    last_B = jnp.sum(inside_BV.astype(jnp.int32), axis=-1) - 1
    border_B1 = jnp.take_along_axis(sorted_BV, last_B[:, None], axis=-1)
    return jnp.where(logits_BV >= border_B1, logits_BV, MASKED)


def tempered(
    logits_BV: Float[Array, "B V"], temperature_B: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Divides by the temperature; greedy rows (0) are left as they are."""
    return logits_BV / jnp.where(temperature_B > 0.0, temperature_B, 1.0)[:, None]


def mask_eos(
    logits_BU: Float[Array, "B U"],
    sampling: SamplingArrays,
    eos_token: int,
    first_id: Int[Array, ""] | int,
) -> Float[Array, "B U"]:
    """Hides EOS from rows that may not end yet; `first_id` is the vocabulary id of column 0."""
    ids_U = first_id + jnp.arange(logits_BU.shape[-1], dtype=jnp.int32)
    hidden_B = sampling.position < sampling.eos_from
    return jnp.where(hidden_B[:, None] & (ids_U == eos_token)[None, :], MASKED, logits_BU)


def _noise(
    seed_2: UInt32[Array, "2"], position: Int[Array, ""], vocabulary: int
) -> Float[Array, " V"]:
    key = jax.random.fold_in(jax.random.wrap_key_data(seed_2, impl="threefry2x32"), position)
    return jax.random.gumbel(key, (vocabulary,), dtype=jnp.float32)


def sample_tokens(logits_BV: Float[Array, "B V"], sampling: SamplingArrays) -> Int[Array, " B"]:
    """Returns a token per row: arg max of filtered, tempered logits plus seeded Gumbel noise.

    Greedy rows have no noise.

    Gumbel noise makes the choice robust: rounding of the logits changes it only where two tokens
    are as good as tied.
    """
    filtering: Bool[Array, ""] = jnp.any((sampling.top_p < 1.0) | (sampling.top_k > 0))
    scaled_BV = tempered(logits_BV, sampling.temperature)
    scaled_BV = jax.lax.cond(
        jnp.any(sampling.min_p > 0.0),
        lambda x: mask_unlikely(x, sampling.min_p),
        lambda x: x,
        scaled_BV,
    )
    scaled_BV = jax.lax.cond(
        filtering,
        lambda x: filter_logits(x, sampling.top_k, sampling.top_p),
        lambda x: x,
        scaled_BV,
    )
    noise_BV = jax.vmap(_noise, in_axes=(0, 0, None))(
        sampling.seed, sampling.position, logits_BV.shape[-1]
    )
    noisy_BV = jnp.where((sampling.temperature > 0.0)[:, None], scaled_BV + noise_BV, logits_BV)
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)
