"""Embeddings: hidden states after the last norm, pooled over the tokens of a prompt.

    last   the hidden state of the last token
    mean   the mean of the hidden states of all tokens

On the devices each row of a prefill is pooled (8 tokens: a sum, or its last token), without a
product with the vocabulary. On the host rows are pooled to pages, and pages to an embedding, always
in the same order: an embedding has the same bits whatever runs beside it, reused pages included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from actors.engine.config import Pooling
from actors.engine.scheduling.hidden_states import PageStates
from actors.engine.scheduling.sequence import Sequence as TokenSequence
from actors.protocol.messages import Completion, logprobs


class Pool(Protocol):
    """One way of pooling."""

    def rows(
        self, hidden_BTW: Float[Array, "B T W"], count_B: Int[Array, " B"]
    ) -> Float[Array, "B W"]:
        """Returns the pooled hidden states of each row of a prefill, float32; on the devices.

        Args:
            hidden_BTW: output of a prefill.
            count_B: tokens of each row; 0: the row is not used.
        """
        ...

    def add_row(self, page: PageStates, row_D: np.ndarray) -> None:
        """Adds the next row of a page, float32 [D]."""
        ...

    def embedding(self, pages: Sequence[PageStates], tokens: int) -> np.ndarray:
        """Returns the embedding of a sequence, float32 [D], from its pages and its length.

        Raises:
            RuntimeError: a page was never computed.
        """
        ...


class LastPool:
    """The hidden state of the last token."""

    def rows(
        self, hidden_BTW: Float[Array, "B T W"], count_B: Int[Array, " B"]
    ) -> Float[Array, "B W"]:
        """Returns the hidden state of the last token of each row."""
        last_B11 = jnp.maximum(count_B - 1, 0)[:, None, None]
        return jnp.take_along_axis(hidden_BTW, last_B11, axis=1)[:, 0].astype(jnp.float32)

    def add_row(self, page: PageStates, row_D: np.ndarray) -> None:
        """Replaces the row before."""
        page.pooled = row_D.copy()

    def embedding(self, pages: Sequence[PageStates], tokens: int) -> np.ndarray:
        """Returns the last row of the last page."""
        return _computed(pages[-1])


class MeanPool:
    """The mean of the hidden states of all tokens."""

    def rows(
        self, hidden_BTW: Float[Array, "B T W"], count_B: Int[Array, " B"]
    ) -> Float[Array, "B W"]:
        """Returns the sum of the hidden states of each row, token by token.

        One addition after the other: a reduction may choose its order by the shape of the call.
        """
        sum_BW = jnp.zeros(hidden_BTW[:, 0].shape, jnp.float32)
        for token in range(hidden_BTW.shape[1]):
            is_real_B1 = (token < count_B)[:, None]
            state_BW = hidden_BTW[:, token].astype(jnp.float32)
            sum_BW = sum_BW + jnp.where(is_real_B1, state_BW, 0.0)
        return sum_BW

    def add_row(self, page: PageStates, row_D: np.ndarray) -> None:
        """Adds to the sum of the page."""
        page.pooled = row_D.copy() if page.pooled is None else page.pooled + row_D

    def embedding(self, pages: Sequence[PageStates], tokens: int) -> np.ndarray:
        """Returns the sum of all pages, added in float64, divided by the number of tokens."""
        total_D = np.zeros(_computed(pages[0]).shape, np.float64)
        for page in pages:
            total_D += _computed(page)
        return (total_D / tokens).astype(np.float32)


POOLS: Mapping[Pooling, Pool] = MappingProxyType({"last": LastPool(), "mean": MeanPool()})


def _computed(page: PageStates) -> np.ndarray:
    if page.pooled is None:
        raise RuntimeError("the hidden states of a page were never computed")
    return page.pooled


def with_embedding(
    completion: Completion, sequence: TokenSequence, pooling: Pooling, *, normalize: bool
) -> Completion:
    """Returns the completion of a sequence whose hidden states have all been computed.

    Args:
        completion: without an embedding.
        sequence: with hidden states.
        pooling: of its pages.
        normalize: the embedding has length 1; one of zeros stays as it is.
    """
    if sequence.hidden is None:
        raise RuntimeError(f"{sequence.request.ref}: expected hidden states, got none")
    embedding_D = POOLS[pooling].embedding(sequence.hidden.pages, len(sequence.tokens))
    if normalize:
        length = np.linalg.norm(embedding_D.astype(np.float64))
        embedding_D = (embedding_D / max(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return replace(completion, embedding=logprobs(embedding_D.tolist()))
