"""Allowed token ids: masks all other tokens."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from actors.engine.logits.columns import NO_TOKEN, mark, padded
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of
from actors.engine.sampling import MASKED


class AllowedTokens(LogitsProcessor):
    """Arrays: the allowed ids [B, N], none where all are. State: which are allowed [B, U]."""

    parameters = ("allowed_token_ids",)

    def host_arrays(self, rows: Rows) -> np.ndarray:
        """Returns the allowed ids of each row."""
        return padded(values_of(rows, "allowed_token_ids"))

    def start(
        self, arrays: Int[Array, "B N"], view: DecodeView, columns: int
    ) -> Bool[Array, "B U"]:
        """Returns which tokens are allowed; it does not change during a call."""
        is_free_B1 = jnp.all(arrays == NO_TOKEN, axis=-1, keepdims=True)
        all_or_none_BU = jnp.tile(is_free_B1, (1, columns))
        return mark(all_or_none_BU, arrays)

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: Int[Array, "B N"],
        state: Bool[Array, "B U"],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Masks the tokens that are not allowed."""
        return jnp.where(state, logits, MASKED)
