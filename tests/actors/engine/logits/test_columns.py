"""Columns of the vocabulary that a device owns, on one device and four, against plain loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.engine.logits.columns import (
    NO_TOKEN,
    ids_in_cache,
    list_length,
    local_columns,
    mark,
    padded,
    row_numbers,
)
from actors.model.sharding import make_mesh

VOCABULARY = 16
IDS = np.array([[0, 3, 4, 15], [7, 7, NO_TOKEN, 8], [NO_TOKEN] * 4], np.int32)


def on_columns(function: Callable[..., Any], shards: int, array_BV: np.ndarray) -> np.ndarray:
    """Returns the results of all devices side by side; each gets its columns of `array_BV`."""
    split = PartitionSpec(None, "model")
    mapped = jax.shard_map(
        function, mesh=make_mesh(1, shards), in_specs=(split,), out_specs=split, check_vma=False
    )
    return np.asarray(jax.jit(mapped)(array_BV))


@pytest.mark.parametrize("shards", [1, 4])
def test_local_columns_are_those_of_the_own_device(shards: int) -> None:
    columns = VOCABULARY // shards
    zeros = np.zeros((3, VOCABULARY), np.float32)
    result = on_columns(lambda x: local_columns(jnp.asarray(IDS), x), shards, zeros)
    by_device = np.split(result, shards, axis=1)
    for device, local in enumerate(by_device):
        for row, ids in enumerate(IDS):
            for place, token in enumerate(ids):
                is_local = device * columns <= token < (device + 1) * columns
                expected = token - device * columns if is_local else columns
                assert local[row, place] == expected


@pytest.mark.parametrize("shards", [1, 4])
def test_mark_sets_the_ids_and_keeps_earlier_marks(shards: int) -> None:
    seen = np.zeros((3, VOCABULARY), np.bool_)
    seen[2, 9] = True
    result = on_columns(lambda x: mark(x, jnp.asarray(IDS)), shards, seen)
    expected = seen.copy()
    for row, ids in enumerate(IDS):
        for token in ids:
            if token != NO_TOKEN:
                expected[row, token] = True
    np.testing.assert_array_equal(result, expected)


def test_row_numbers_are_a_column() -> None:
    assert row_numbers(jnp.asarray(IDS)).tolist() == [[0], [1], [2]]


def test_ids_in_cache_equal_a_loop_over_positions() -> None:
    rng = np.random.default_rng(0)
    page_count = 6
    page_size = 4
    cache = rng.integers(0, VOCABULARY, (page_count, page_size)).astype(np.int32)
    cache[0, 0] = 0  # token 0 counts like any other
    # a page beyond the last one marks entries of the table that are not in use
    pages = np.array([[0, 5, 2], [3, page_count, page_count], [1, 4, page_count]], np.int32)
    first = np.array([0, 4, 3], np.int32)
    last = np.array([12, 4, 7], np.int32)
    result = ids_in_cache(*map(jnp.asarray, (cache, pages, first, last)))
    for row in range(3):
        for position in range(12):
            expected = NO_TOKEN
            if first[row] <= position < last[row]:
                expected = cache[pages[row, position // page_size], position % page_size]
            assert result[row, position] == expected


@pytest.mark.parametrize(
    ("longest", "length"), [(0, 16), (16, 16), (17, 128), (128, 128), (129, 1024)]
)
def test_list_length_grows_in_few_steps(longest: int, length: int) -> None:
    assert list_length(longest) == length


def test_list_length_starts_at_the_shortest() -> None:
    assert list_length(4, 4) == 4
    assert list_length(5, 4) == 32


def test_padded_fills_with_no_token() -> None:
    ids = padded([[5, 0], [], list(range(17))])
    assert ids.dtype == np.int32
    assert ids.shape == (3, 128)
    assert ids[0, :3].tolist() == [5, 0, NO_TOKEN]
    assert (ids[1] == NO_TOKEN).all()
    assert ids[2, :18].tolist() == [*range(17), NO_TOKEN]


def test_padded_of_no_lists_has_no_rows() -> None:
    assert padded([]).shape == (0, 16)
