"""Presence and frequency penalty: lower the logits of tokens that a completion has.

The prompt does not count. Generated tokens are counted in the cache, where the ids of all tokens
lie beside their keys, so that nothing but the penalties is sent to the device.
"""
# Source: the OpenAI API, as vLLM implements it: logits minus frequency_penalty x count, minus
# presence_penalty where the count is above 0.

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from actors.engine.logits.columns import NO_TOKEN, ids_in_cache, local_columns, row_numbers
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of


class OccurrenceArrays(NamedTuple):
    """Penalties of the rows; 0 is off."""

    presence: Float[Array, " B"]
    frequency: Float[Array, " B"]


class OccurrencePenalties(LogitsProcessor):
    """State: how often each token was generated, int32 [B, U]."""

    parameters = ("presence_penalty", "frequency_penalty")

    def host_arrays(self, rows: Rows) -> OccurrenceArrays:
        """Returns the penalties of each row, 0 where there is none."""
        presence = np.asarray(values_of(rows, "presence_penalty"), np.float32)
        frequency = np.asarray(values_of(rows, "frequency_penalty"), np.float32)
        return OccurrenceArrays(presence, frequency)  # type: ignore[arg-type]

    def start(self, arrays: OccurrenceArrays, view: DecodeView, columns: int) -> Int[Array, "B U"]:
        """Returns the counts of generated tokens in the cache.

        They are the last `position - 1` of it: the newest is the input of the first step.
        """
        none_BU = jnp.zeros((view.tokens.shape[0], columns), jnp.int32)

        def counts() -> Int[Array, "B U"]:
            prompt_length_B = view.start + 1 - view.position
            ids_BS = ids_in_cache(view.cached_tokens, view.pages, prompt_length_B, view.start)
            return _add(none_BU, ids_BS)

        return jax.lax.cond(_is_used(arrays), counts, lambda: none_BU)

    def observe(self, state: Int[Array, "B U"], view: DecodeView) -> Int[Array, "B U"]:
        """Returns the counts with the input of the step, unless it is the prompt's last token."""
        generated_B = jnp.where(view.position > 0, view.tokens, NO_TOKEN)
        return _add(state, generated_B[:, None])

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: OccurrenceArrays,
        state: Int[Array, "B U"],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Subtracts the penalties from the logits of generated tokens."""

        def penalize(logits_BU: Float[Array, "B U"]) -> Float[Array, "B U"]:
            frequency_BU = arrays.frequency[:, None] * state.astype(jnp.float32)
            presence_BU = jnp.where(state > 0, arrays.presence[:, None], 0.0)
            return logits_BU - frequency_BU - presence_BU

        return jax.lax.cond(_is_used(arrays), penalize, lambda x: x, logits)


def _add(counts_BU: Int[Array, "B U"], ids_BN: Int[Array, "B N"]) -> Int[Array, "B U"]:
    columns_BN = local_columns(ids_BN, counts_BU)
    return counts_BU.at[row_numbers(ids_BN), columns_BN].add(1, mode="drop")


def _is_used(arrays: OccurrenceArrays) -> Bool[Array, ""]:
    """Returns whether a row has a penalty: the same on all devices of the model axis."""
    return jnp.any(arrays.presence != 0.0) | jnp.any(arrays.frequency != 0.0)
