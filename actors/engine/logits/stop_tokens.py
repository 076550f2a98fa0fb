"""Stop token ids: masks them until min_tokens tokens are generated; stopping/finish.py stops."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from actors.engine.logits.columns import NO_TOKEN, local_columns, padded, row_numbers
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of
from actors.engine.sampling import MASKED


class StopTokenArrays(NamedTuple):
    """Ids that stop a row, filled with `NO_TOKEN`, and the tokens before they may be generated."""

    tokens: Int[Array, "B N"]
    first_position: Int[Array, " B"]


class StopTokens(LogitsProcessor):
    """Without a state."""

    parameters = ("stop_token_ids",)

    def host_arrays(self, rows: Rows) -> StopTokenArrays:
        """Returns the ids of each row, and its min_tokens."""
        first_position = np.asarray(values_of(rows, "min_tokens"), np.int32)
        tokens = padded(values_of(rows, "stop_token_ids"))
        return StopTokenArrays(tokens, first_position)  # type: ignore[arg-type]

    def start(self, arrays: StopTokenArrays, view: DecodeView, columns: int) -> None:
        """Returns no state."""

    def apply(
        self, logits: Float[Array, "B U"], arrays: StopTokenArrays, state: None, view: DecodeView
    ) -> Float[Array, "B U"]:
        """Masks the ids where the completion is too short to end."""
        is_early_B = view.position < arrays.first_position
        masked_BN = jnp.where(is_early_B[:, None], arrays.tokens, NO_TOKEN)
        columns_BN = local_columns(masked_BN, logits)
        return logits.at[row_numbers(masked_BN), columns_BN].set(MASKED, mode="drop")
