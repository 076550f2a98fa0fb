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
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt32

MASKED = -1e30  # finite: a row whose every token is masked must stay defined

# Ranks of float32 numbers among all numbers of 32 bits, from -NaN to NaN.
SIGN_BIT = np.uint32(0x80000000)
RANK_OF_MINUS_INFINITY = np.uint32(0x007FFFFF)
RANK_OF_INFINITY = np.uint32(0xFF800000)


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

    Ties at a border are all kept, and count in the mass that `top_p` is a share of. Temperature and
    min-p have been applied before.
    """
    after_top_k_BV = jax.lax.cond(
        jnp.any(top_k_B > 0),
        lambda logits: _keep_top_k(logits, top_k_B),
        lambda logits: logits,
        logits_BV,
    )
    return jax.lax.cond(
        jnp.any(top_p_B < 1.0),
        lambda logits: _keep_top_p(logits, top_p_B),
        lambda logits: logits,
        after_top_k_BV,
    )


def _keep_top_k(logits_BV: Float[Array, "B V"], top_k_B: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Masks tokens below the `top_k`-th most likely one; 0 keeps a row as it is."""
    vocabulary = logits_BV.shape[-1]
    kept_B = jnp.where(top_k_B > 0, jnp.minimum(top_k_B, vocabulary), vocabulary)
    return _keep_above(logits_BV, mass_border(logits_BV, jnp.ones((), jnp.int32), kept_B))


def _keep_top_p(logits_BV: Float[Array, "B V"], top_p_B: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Masks all but the most likely tokens with the mass `top_p`; 1 keeps a row as it is."""
    peak_B = jnp.max(logits_BV, axis=-1)
    # an infinite peak minus itself is NaN
    is_peak_BV = logits_BV == peak_B[:, None]
    mass_BV = jnp.where(is_peak_BV, 1.0, jnp.exp(logits_BV - peak_B[:, None]))
    border_B = mass_border(logits_BV, mass_BV, top_p_B * jnp.sum(mass_BV, axis=-1))
    # the most likely token stays, whatever top_p is
    border_B = jnp.minimum(border_B, peak_B)
    return _keep_above(logits_BV, jnp.where(top_p_B < 1.0, border_B, -jnp.inf))


def _keep_above(
    logits_BV: Float[Array, "B V"], border_B: Float[Array, " B"]
) -> Float[Array, "B V"]:
    return jnp.where(logits_BV >= border_B[:, None], logits_BV, MASKED)


def mass_border(
    logits_BV: Float[Array, "B V"],
    mass_BV: Shaped[Array, "B V"] | Shaped[Array, ""],
    least_B: Shaped[Array, " B"],
) -> Float[Array, " B"]:
    """Returns the highest border of each row at and above which tokens have the mass `least`.

    Bisects the float32 numbers, which are as many as 32 bits, so that the result is exact. That is
    32 sums over a row instead of a sort: one row of 131,072 logits takes a tenth of the time.

    Args:
        logits_BV: the logits, no NaN among them.
        mass_BV: of each token, not negative; one number where all tokens have the same mass.
        least_B: mass that the tokens must have, of the type of `mass_BV`. Minus infinity is the
            border where all tokens have less.
    """

    def decide_bit(number: Int[Array, ""], rank_B: UInt32[Array, " B"]) -> UInt32[Array, " B"]:
        bit = jnp.uint32(1) << (31 - number).astype(jnp.uint32)
        higher_B = rank_B | bit
        is_above_BV = logits_BV >= _number_of_rank(higher_B)[:, None]
        mass_above_B = jnp.sum(jnp.where(is_above_BV, mass_BV, 0), axis=-1)
        return jnp.where(mass_above_B >= least_B, higher_B, rank_B)

    lowest_rank_B = jnp.zeros(logits_BV.shape[0], jnp.uint32)
    return _number_of_rank(jax.lax.fori_loop(0, 32, decide_bit, lowest_rank_B))


def _number_of_rank(rank_B: UInt32[Array, " B"]) -> Float[Array, " B"]:
    """Returns the float32 numbers by their rank; ranks of NaN are infinities.

    Positive numbers have their bits in ascending order, negative ones in descending order.
    """
    rank_B = jnp.clip(rank_B, RANK_OF_MINUS_INFINITY, RANK_OF_INFINITY)
    is_positive_B = rank_B >= SIGN_BIT
    bits_B = jnp.where(is_positive_B, rank_B ^ SIGN_BIT, ~rank_B)
    return jax.lax.bitcast_convert_type(bits_B, jnp.float32)


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
    scaled_BV = tempered(logits_BV, sampling.temperature)
    scaled_BV = jax.lax.cond(
        jnp.any(sampling.min_p > 0.0),
        lambda x: mask_unlikely(x, sampling.min_p),
        lambda x: x,
        scaled_BV,
    )
    scaled_BV = filter_logits(scaled_BV, sampling.top_k, sampling.top_p)
    noise_BV = jax.vmap(_noise, in_axes=(0, 0, None))(
        sampling.seed, sampling.position, logits_BV.shape[-1]
    )
    noisy_BV = jnp.where((sampling.temperature > 0.0)[:, None], scaled_BV + noise_BV, logits_BV)
    return jnp.argmax(noisy_BV, axis=-1).astype(jnp.int32)
