"""Marks tokens in the columns of the vocabulary that a device owns, inside `jax.shard_map`."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from actors.engine.vocabulary import first_id

NO_TOKEN = -1  # fills lists of ids
SHORTEST_LIST = 16
LISTS_APART = 8


def local_columns(ids_BN: Int[Array, "B N"], array_BU: Shaped[Array, "B U"]) -> Int[Array, "B N"]:
    """Returns the column of `array_BU` for each id.

    U, a column that does not exist, for ids of other devices and `NO_TOKEN`: with `mode="drop"`,
    writes to it are dropped.
    """
    columns = array_BU.shape[-1]
    local_BN = ids_BN - first_id(array_BU)
    is_local_BN = (ids_BN >= 0) & (local_BN >= 0) & (local_BN < columns)
    return jnp.where(is_local_BN, local_BN, columns)


def row_numbers(array_BN: Shaped[Array, "B N"]) -> Int[Array, "B 1"]:
    """Returns the number of each row, to index with `local_columns`."""
    return jnp.arange(array_BN.shape[0], dtype=jnp.int32)[:, None]


def mark(seen_BU: Bool[Array, "B U"], ids_BN: Int[Array, "B N"]) -> Bool[Array, "B U"]:
    """Returns `seen_BU` with the columns of `ids_BN` set."""
    columns_BN = local_columns(ids_BN, seen_BU)
    return seen_BU.at[row_numbers(ids_BN), columns_BN].set(True, mode="drop")


def ids_in_cache(
    cached_tokens_PZ: Int[Array, "P Z"],
    pages_BJ: Int[Array, "B J"],
    first_B: Int[Array, " B"],
    last_B: Int[Array, " B"],
) -> Int[Array, "B S"]:
    """Returns the ids at cache positions [first, last) of each row, `NO_TOKEN` at all others.

    Token 0 counts like any other: it is invisible to attention, not to readers of the text.
    """
    last_page = cached_tokens_PZ.shape[0] - 1
    ids_BJZ = cached_tokens_PZ[jnp.clip(pages_BJ, 0, last_page)]
    ids_BS = ids_BJZ.reshape(pages_BJ.shape[0], -1)
    position_1S = jnp.arange(ids_BS.shape[1], dtype=jnp.int32)[None, :]
    is_inside_BS = (position_1S >= first_B[:, None]) & (position_1S < last_B[:, None])
    return jnp.where(is_inside_BS, ids_BS, NO_TOKEN)


def last_ids_in_cache(
    cached_tokens_PZ: Int[Array, "P Z"],
    pages_BJ: Int[Array, "B J"],
    first_B: Int[Array, " B"],
    last_B: Int[Array, " B"],
    count: int,
) -> Int[Array, "B N"]:
    """Returns the last N = `count` of the ids at cache positions [first, last) of each row.

    The newest is the last one, and `NO_TOKEN` stands before the first.
    """
    position_BN = last_B[:, None] + jnp.arange(-count, 0, dtype=jnp.int32)[None, :]
    page_size = cached_tokens_PZ.shape[1]
    is_inside_BN = position_BN >= jnp.maximum(first_B, 0)[:, None]
    page_BN = jnp.take_along_axis(pages_BJ, jnp.maximum(position_BN, 0) // page_size, axis=1)
    ids_BN = cached_tokens_PZ[page_BN, position_BN % page_size]
    return jnp.where(is_inside_BN, ids_BN, NO_TOKEN)


def list_length(longest: int, shortest: int = SHORTEST_LIST) -> int:
    """Returns the length of lists that hold `longest` items: few lengths, few programs."""
    length = shortest
    while length < longest:
        length *= LISTS_APART
    return length


def padded(lists: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns lists of ids as int32 [B, N], filled with `NO_TOKEN`."""
    longest = max(map(len, lists), default=0)
    ids = np.full((len(lists), list_length(longest)), NO_TOKEN, np.int32)
    for row, items in enumerate(lists):
        ids[row, : len(items)] = items
    return ids
