"""Bad words: masks the token that would complete a forbidden sequence of generated tokens."""
# Source: vLLM: of a sequence, the last token is masked where the completion ends with the others;
# the prompt does not count.

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from actors.engine.logits.columns import (
    NO_TOKEN,
    last_ids_in_cache,
    list_length,
    local_columns,
    padded,
    row_numbers,
)
from actors.engine.logits.processor import DecodeView, LogitsProcessor, Rows, values_of
from actors.engine.sampling import MASKED

SHORTEST_TAIL = 4  # tokens


class BadWordArrays(NamedTuple):
    """W words of up to T + 1 tokens each.

    A prefix stands at the end of its T entries; `NO_TOKEN` before it matches everything.
    """

    prefix: Int[Array, "B W T"]
    last: Int[Array, "B W"]  # `NO_TOKEN` where there is no word


def _last_tokens(words: Sequence[Sequence[int]]) -> list[int]:
    return [word[-1] for word in words]


class BadWords(LogitsProcessor):
    """State: the last T generated tokens, int32 [B, T], `NO_TOKEN` before the first."""

    parameters = ("bad_words",)

    def host_arrays(self, rows: Rows) -> BadWordArrays:
        """Returns the words of each row."""
        words_of_rows = values_of(rows, "bad_words")
        longest = 1
        for words in words_of_rows:
            longest = max(longest, *map(len, words), 1)
        width = list_length(longest - 1, SHORTEST_TAIL)
        last = padded([_last_tokens(words) for words in words_of_rows])
        prefix = np.full((*last.shape, width), NO_TOKEN, np.int32)
        for number, words in enumerate(words_of_rows):
            for place, word in enumerate(words):
                prefix[number, place, width - len(word) + 1 :] = word[:-1]
        return BadWordArrays(prefix, last)  # type: ignore[arg-type]

    def start(self, arrays: BadWordArrays, view: DecodeView, columns: int) -> Int[Array, "B T"]:
        """Returns the end of the completion in the cache.

        The newest token is the input of the first step.
        """
        prompt_length_B = view.start + 1 - view.position
        return last_ids_in_cache(
            view.cached_tokens, view.pages, prompt_length_B, view.start, arrays.prefix.shape[-1]
        )

    def observe(self, state: Int[Array, "B T"], view: DecodeView) -> Int[Array, "B T"]:
        """Returns the end with the input of the step, unless it is the prompt's last token."""
        shifted_BT = jnp.concatenate([state[:, 1:], view.tokens[:, None]], axis=1)
        return jnp.where((view.position > 0)[:, None], shifted_BT, state)

    def apply(
        self,
        logits: Float[Array, "B U"],
        arrays: BadWordArrays,
        state: Int[Array, "B T"],
        view: DecodeView,
    ) -> Float[Array, "B U"]:
        """Masks the last token of each word whose other tokens end the completion."""
        is_same_BWT = (arrays.prefix == state[:, None, :]) | (arrays.prefix == NO_TOKEN)
        is_next_BW = jnp.all(is_same_BWT, axis=-1)
        masked_BW = jnp.where(is_next_BW, arrays.last, NO_TOKEN)
        columns_BW = local_columns(masked_BW, logits)
        return logits.at[row_numbers(masked_BW), columns_BW].set(MASKED, mode="drop")
