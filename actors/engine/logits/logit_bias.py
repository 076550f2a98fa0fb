"""Logit bias: adds a number to the logits of chosen tokens."""
# Source: the OpenAI API, as vLLM implements it; applied before the penalties.

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from actors.engine.logits.columns import local_columns, padded, row_numbers
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of


class BiasArrays(NamedTuple):
    """Tokens with a bias, and their biases, filled with `NO_TOKEN` and 0."""

    tokens: Int[Array, "B N"]
    bias: Float[Array, "B N"]


class LogitBias(LogitsProcessor):
    """State: the bias of each token, float32 [B, U]."""

    parameters = ("logit_bias",)

    def host_arrays(self, rows: Rows) -> BiasArrays:
        """Returns the biases of each row, as short lists."""
        tokens: list[list[int]] = []
        biases: list[list[float]] = []
        for pairs in values_of(rows, "logit_bias"):
            tokens.append([token for token, _ in pairs])
            biases.append([bias for _, bias in pairs])
        ids = padded(tokens)
        values = np.zeros(ids.shape, np.float32)
        for number, row_biases in enumerate(biases):
            values[number, : len(row_biases)] = row_biases
        return BiasArrays(ids, values)  # type: ignore[arg-type]

    def start(self, arrays: BiasArrays, view: DecodeView, columns: int) -> Float[Array, "B U"]:
        """Returns the bias of each token; it does not change during a call."""
        none_BU = jnp.zeros((view.tokens.shape[0], columns), jnp.float32)
        columns_BN = local_columns(arrays.tokens, none_BU)
        return none_BU.at[row_numbers(columns_BN), columns_BN].add(arrays.bias, mode="drop")

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: BiasArrays,
        state: Float[Array, "B U"],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Adds the biases."""
        return logits + state
