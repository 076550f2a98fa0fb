"""Log-probs, ranks and most likely tokens from logits that are split over the mesh's "model" axis.

Runs inside `jax.shard_map`: a device sees the rows of the vocabulary it owns (U of V) and agrees
with the others through small collectives. To draw with temperature, each device gets the whole
vocabulary of a part of the rows; no device ever holds [N, V]. Ties go to the lowest id.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

INT32_MAX = 2**31 - 1
SMALLEST_FLOAT32 = 2.0**-126


class Likelihood(NamedTuple):
    """What is kept of a row of logits."""

    logprob: Float[Array, " N"]  # of the target
    is_greedy: Bool[Array, " N"]  # the target is the most likely token
    top_ids: Int[Array, "N K"]  # most likely first
    top_logprobs: Float[Array, "N K"]
    tail_logprobs: Float[Array, "N L"]  # of all other tokens together; L = 1 if requested, else 0


def first_id(logits_NU: Shaped[Array, "N U"]) -> Int[Array, ""]:
    """Returns the vocabulary id of column 0 on this device."""
    return jax.lax.axis_index("model").astype(jnp.int32) * logits_NU.shape[-1]


def log_normaliser(logits_NU: Float[Array, "N U"]) -> Float[Array, " N"]:
    """Returns log(sum(exp(logits))) over the whole vocabulary."""
    peak_N = jax.lax.pmax(jnp.max(logits_NU, axis=-1), "model")
    return peak_N + jnp.log(
        jax.lax.psum(jnp.sum(jnp.exp(logits_NU - peak_N[:, None]), axis=-1), "model")
    )


def most_likely(logits_NU: Float[Array, "N U"]) -> Int[Array, " N"]:
    """Returns the id of the largest logit of the whole vocabulary, the lowest id of equals."""
    best_N = jax.lax.pmax(jnp.max(logits_NU, axis=-1), "model")
    id_U = jnp.arange(logits_NU.shape[-1], dtype=jnp.int32) + first_id(logits_NU)
    # two plain reductions: an argmax, which carries value and index through one, takes several
    # times as long on CPUs
    lowest_N = jnp.min(jnp.where(logits_NU == best_N[:, None], id_U[None, :], INT32_MAX), axis=-1)
    return jax.lax.pmin(lowest_N, "model")


def _target_logit(logits_NU: Float[Array, "N U"], target_N: Int[Array, " N"]) -> Float[Array, " N"]:
    local_N = target_N - first_id(logits_NU)
    mine_N = (local_N >= 0) & (local_N < logits_NU.shape[-1])
    index_N1 = jnp.where(mine_N, local_N, 0)[:, None]
    return jax.lax.psum(
        jnp.where(mine_N, jnp.take_along_axis(logits_NU, index_N1, axis=-1)[:, 0], 0.0), "model"
    )


def _top(logits_NU: Float[Array, "N U"], k: int) -> tuple[Float[Array, "N K"], Int[Array, "N K"]]:
    """Returns the K largest logits and their ids; equals keep the order of their ids."""
    values_NK, index_NK = jax.lax.top_k(logits_NU, min(k, logits_NU.shape[-1]))
    ids_NK = index_NK.astype(jnp.int32) + first_id(logits_NU)
    all_values = jax.lax.all_gather(values_NK, "model", axis=1, tiled=True)
    all_ids = jax.lax.all_gather(ids_NK, "model", axis=1, tiled=True)
    best_NK, where_NK = jax.lax.top_k(all_values, k)
    return best_NK, jnp.take_along_axis(all_ids, where_NK, axis=1)


def _tail(
    logits_NU: Float[Array, "N U"], top_values_NK: Float[Array, "N K"], normaliser_N: Array
) -> Float[Array, " N"]:
    """Returns the log of the probability of all tokens that are not among the K most likely ones.

    It is summed, not subtracted from 1: log-probs of a tail of 1e-6 are as exact as others. Finite
    also where no token is left.
    """
    border_N1 = top_values_NK[:, -1:]
    probability_NU = jnp.exp(logits_NU - normaliser_N[:, None])
    below_N = jnp.sum(jnp.where(logits_NU < border_N1, probability_NU, 0.0), axis=-1)
    equal_N = jnp.sum((logits_NU == border_N1).astype(jnp.float32), axis=-1)
    all_below_N, all_equal_N = jax.lax.psum((below_N, equal_N), "model")

    equal_in_top_N = jnp.sum((top_values_NK == border_N1).astype(jnp.float32), axis=-1)
    border_probability_N = jnp.exp(border_N1[:, 0] - normaliser_N)
    tail_N = all_below_N + (all_equal_N - equal_in_top_N) * border_probability_N
    return jnp.log(jnp.maximum(tail_N, SMALLEST_FLOAT32))


def likelihood(
    logits_NU: Float[Array, "N U"],
    target_N: Int[Array, " N"],
    k: int,
    *,
    with_tail: bool = False,
) -> Likelihood:
    """Returns log-prob, rank and the `k` most likely tokens of each row, under the model itself.

    With `with_tail`, for k > 0, also the log-prob of all other tokens together.
    """
    normaliser_N = log_normaliser(logits_NU)
    tail_logprobs_NL = jnp.zeros((logits_NU.shape[0], 0), jnp.float32)
    if k > 0:
        top_values_NK, top_ids_NK = _top(logits_NU, k)
        if with_tail:
            tail_logprobs_NL = _tail(logits_NU, top_values_NK, normaliser_N)[:, None]
    else:
        top_values_NK = jnp.zeros((logits_NU.shape[0], 0), jnp.float32)
        top_ids_NK = jnp.zeros((logits_NU.shape[0], 0), jnp.int32)
    return Likelihood(
        logprob=_target_logit(logits_NU, target_N) - normaliser_N,
        is_greedy=most_likely(logits_NU) == target_N,
        top_ids=top_ids_NK,
        top_logprobs=top_values_NK - normaliser_N[:, None],
        tail_logprobs=tail_logprobs_NL,
    )


def rows_per_device(rows: int) -> int:
    """Returns how many of `rows` rows each device of the model axis draws, the last one fewer."""
    return -(-rows // jax.lax.axis_size("model"))


def split_rows(logits_NU: Float[Array, "N U"]) -> Float[Array, "R V"]:
    """Returns this device's rows of the logits, over the whole vocabulary.

    One all-to-all, of the bytes that the device owns. Rows that are missing on the last devices are
    zero.
    """
    devices = jax.lax.axis_size("model")
    missing_rows = rows_per_device(logits_NU.shape[0]) * devices - logits_NU.shape[0]
    padded = jnp.pad(logits_NU, ((0, missing_rows), (0, 0)))
    return jax.lax.all_to_all(padded, "model", split_axis=0, concat_axis=1, tiled=True)


def own_rows(array: Shaped[Array, "N *values"]) -> Shaped[Array, "R *values"]:
    """Returns the rows of `split_rows` of an array that all devices of the model axis have."""
    rows = rows_per_device(array.shape[0])
    missing_rows = rows * jax.lax.axis_size("model") - array.shape[0]
    padded = jnp.pad(array, ((0, missing_rows), *((0, 0),) * (array.ndim - 1)))
    first_row = jax.lax.axis_index("model") * rows
    return jax.lax.dynamic_slice_in_dim(padded, first_row, rows)


def join_rows(own_R: Shaped[Array, " R"], rows: int) -> Shaped[Array, " N"]:
    """Returns the `rows` values of all devices, of which each has computed its own rows."""
    return jax.lax.all_gather(own_R, "model", tiled=True)[:rows]
