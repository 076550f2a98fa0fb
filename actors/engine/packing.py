"""Packs the arrays of a call into one, so that a call copies one array to each device.

Input: a tree of arrays [rows, ...] of 32-bit numbers and Booleans. The packed array has the bits of
a row of all of them side by side, 32 bits for each entry:

    tokens [B]   pages [B, 3]   sampling.seed [B, 2]   …
    ─────────────────────────────────────────────────────
    t0           p00 p01 p02    s00 s01                …    row 0
    t1           p10 p11 p12    s10 s11                …    row 1

The layout is static: `unpack` compiles to slices, which XLA fuses into their users.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

Tree = TypeVar("Tree")


class _Field(NamedTuple):
    """One array of a tree: its dtype, and its shape without the rows."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where the arrays of a tree lie in the packed rows. Equal layouts are equal programs."""

    structure: Any  # jax.tree.structure of the tree
    fields: tuple[_Field, ...]

    @property
    def words(self) -> int:
        """32-bit words of a packed row."""
        return sum(math.prod(field.shape) for field in self.fields)


@partial(jax.tree_util.register_dataclass, data_fields=("words",), meta_fields=("layout",))
@dataclass(frozen=True)
class PackedRows(Generic[Tree]):
    """A tree of arrays [B, ...] as one array."""

    # uint32 [B, W]; Any: host arrays and shapes without numbers take this form, too
    words: Any
    layout: RowLayout

    def unpack(self) -> Tree:
        """Returns the tree, on the device."""
        rows = self.words.shape[0]
        arrays: list[Array] = []
        first = 0
        for field in self.layout.fields:
            end = first + math.prod(field.shape)
            words = self.words[:, first:end].reshape(rows, *field.shape)
            arrays.append(_from_words(words, jnp.dtype(field.dtype)))
            first = end
        tree: Tree = jax.tree.unflatten(self.layout.structure, arrays)
        return tree


def layout_of(tree: Any) -> RowLayout:
    """Returns the layout of a tree of arrays, or of their shapes.

    Raises:
        TypeError: an array has numbers of another size than 32 bits.
    """
    leaves, structure = jax.tree.flatten(tree)
    fields: list[_Field] = []
    for leaf in leaves:
        dtype = jnp.dtype(leaf.dtype)
        if dtype != jnp.bool_ and dtype.itemsize != 4:
            raise TypeError(f"packed rows: expected 32-bit numbers or Booleans, got {dtype}")
        fields.append(_Field(tuple(leaf.shape[1:]), dtype.name))
    return RowLayout(structure, tuple(fields))


def pack(tree: Tree) -> PackedRows[Tree]:
    """Returns a tree of NumPy arrays with the same number of rows, packed on the host."""
    columns = [_to_words(leaf) for leaf in jax.tree.leaves(tree)]
    return PackedRows(np.concatenate(columns, axis=1), layout_of(tree))


def _to_words(array: np.ndarray) -> np.ndarray:
    columns = array.reshape(len(array), math.prod(array.shape[1:]))
    if columns.dtype == np.bool_:
        return columns.astype(np.uint32)
    return np.ascontiguousarray(columns).view(np.uint32)


def _from_words(words: UInt32[Array, "B *shape"], dtype: Any) -> Shaped[Array, "B *shape"]:
    if dtype == jnp.bool_:
        return words != 0
    return jax.lax.bitcast_convert_type(words, dtype)
