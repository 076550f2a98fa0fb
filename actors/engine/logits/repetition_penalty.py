"""Repetition penalty: makes tokens that a prompt or its completion has less likely.

Which tokens those are is read from the cache, where the ids of all tokens lie beside their keys:
nothing but the penalty is sent to the device, and the slot, the batch, the replica and
interruptions do not matter.
"""
# Source: Keskar et al., CTRL (arXiv:1909.05858), section 4.1, with the sign that Hugging Face and
# vLLM give it: a negative logit is multiplied, so that a penalty above 1 always makes a token less
# likely.

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from actors.engine.logits.columns import ids_in_cache, mark
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of

OFF = 1.0


class RepetitionPenalty(LogitsProcessor):
    """Arrays: the penalty [B]. State: which tokens are in the sequence [B, U]."""

    parameters = ("repetition_penalty",)

    def host_arrays(self, rows: Rows) -> np.ndarray:
        """Returns the penalty of each row, 1 where there is none."""
        return np.asarray(values_of(rows, "repetition_penalty"), np.float32)

    def start(
        self, arrays: Float[Array, " B"], view: DecodeView, columns: int
    ) -> Bool[Array, "B U"]:
        """Returns which tokens lie in the cache."""
        none_BU = jnp.zeros((arrays.shape[0], columns), jnp.bool_)

        def seen() -> Bool[Array, "B U"]:
            first_B = jnp.zeros_like(view.start)
            ids_BS = ids_in_cache(view.cached_tokens, view.pages, first_B, view.start)
            return mark(none_BU, ids_BS)

        return jax.lax.cond(_is_used(arrays), seen, lambda: none_BU)

    def observe(self, state: Bool[Array, "B U"], view: DecodeView) -> Bool[Array, "B U"]:
        """Returns the tokens seen with the input of the step."""
        return mark(state, view.tokens[:, None])

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: Float[Array, " B"],
        state: Bool[Array, "B U"],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Divides positive logits of seen tokens by the penalty and multiplies negative ones."""

        def penalize(logits_BU: Float[Array, "B U"]) -> Float[Array, "B U"]:
            penalty_B1 = arrays[:, None]
            divided_BU = logits_BU / penalty_B1
            multiplied_BU = logits_BU * penalty_B1
            penalized_BU = jnp.where(logits_BU > 0.0, divided_BU, multiplied_BU)
            return jnp.where(state, penalized_BU, logits_BU)

        return jax.lax.cond(_is_used(arrays), penalize, lambda x: x, logits)


def _is_used(penalty_B: Float[Array, " B"]) -> Bool[Array, ""]:
    """Returns whether a row has a penalty: the same on all devices of the model axis."""
    return jnp.any(penalty_B != OFF)
