"""packing.py: unpacked arrays have the bits of the packed ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.packing import PackedRows, layout_of, pack


class Call(NamedTuple):
    """A tree of all types of arrays that calls have."""

    counts: np.ndarray
    is_used: np.ndarray
    seeds: np.ndarray
    nested: tuple[np.ndarray, ...]


def call_of(rows: int, width: int) -> Call:
    rng = np.random.default_rng(rows)
    numbers = rng.normal(size=(rows, 2, 3)).astype(np.float32)
    numbers[0, 0] = [np.nan, -0.0, -np.inf]
    return Call(
        counts=rng.integers(-5, 5, rows, np.int32),
        is_used=rng.random(rows) > 0.5,
        seeds=rng.integers(0, 1 << 32, (rows, 2), np.uint32),
        nested=(numbers, rng.integers(-5, 5, (rows, width), np.int32)),
    )


def test_unpacked_rows_have_the_bits_of_the_packed_tree() -> None:
    call = call_of(5, 4)
    packed = pack(call)
    assert packed.words.shape == (5, packed.layout.words) == (5, 1 + 1 + 2 + 6 + 4)
    unpacked = jax.jit(PackedRows.unpack)(packed)
    assert jax.tree.structure(unpacked) == jax.tree.structure(call)
    for array, expected in zip(jax.tree.leaves(unpacked), jax.tree.leaves(call), strict=True):
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        assert np.asarray(array).tobytes() == expected.tobytes()


def test_packed_rows_hold_arrays_without_columns() -> None:
    packed = pack((np.zeros((3, 0), np.int32), np.arange(3, dtype=np.int32)))
    unpacked = jax.jit(PackedRows.unpack)(packed)
    assert unpacked[0].shape == (3, 0)
    assert np.asarray(unpacked[1]).tolist() == [0, 1, 2]


def test_layout_separates_trees_whose_rows_have_the_same_length() -> None:
    """Programs are found by structure and shape: these two need one each."""
    first = (np.zeros((2, 4), np.int32), np.zeros((2, 1), np.int32))
    second = (np.zeros((2, 1), np.int32), np.zeros((2, 4), np.int32))
    assert pack(first).words.shape == pack(second).words.shape
    assert jax.tree.structure(pack(first)) != jax.tree.structure(pack(second))
    assert jax.tree.structure(pack(first)) == jax.tree.structure(
        pack(jax.tree.map(np.ones_like, first))
    )


def test_layout_follows_shapes_without_numbers() -> None:
    call = call_of(5, 4)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), call)
    assert layout_of(shapes) == layout_of(call) == pack(call).layout


def test_layout_refuses_numbers_of_other_sizes() -> None:
    with pytest.raises(TypeError, match="expected 32-bit numbers or Booleans, got bfloat16"):
        layout_of([np.zeros((2, 2), jnp.bfloat16)])
