"""Bytes that each value of an Arrow column takes, without decoding dictionaries."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Sizes = npt.NDArray[np.int64]
ITEM_BYTES = 8  # at least, of an item of a list


def value_bytes(values: Any) -> Sizes:
    """Returns the bytes of each value of an array; a null has none or few."""
    data_type = values.type
    if isinstance(data_type, pa.BaseExtensionType):
        return value_bytes(values.storage)
    if types.is_null(data_type):
        return np.zeros(len(values), np.int64)
    if types.is_dictionary(data_type):
        return _dictionary_bytes(values)
    if types.is_run_end_encoded(data_type):
        return _run_bytes(values)
    if types.is_nested(data_type):
        return _nested_bytes(values)
    if _has_variable_width(data_type):
        return _text_bytes(values)
    width = max(data_type.bit_width // 8, 1)
    return np.full(len(values), width, np.int64)


def _nested_bytes(values: Any) -> Sizes:
    data_type = values.type
    if types.is_struct(data_type):
        sizes = np.zeros(len(values), np.int64)
        for index in range(data_type.num_fields):
            sizes += value_bytes(values.field(index))
        return sizes
    if types.is_union(data_type):
        return _union_bytes(values)
    if types.is_map(data_type):
        return _map_bytes(values)
    if types.is_list_view(data_type) or types.is_large_list_view(data_type):
        return _list_view_bytes(values)
    return _list_bytes(values)


def _has_variable_width(data_type: Any) -> bool:
    """Whether values are text or bytes."""
    try:
        return not data_type.bit_width
    except ValueError:
        return True


def _dictionary_bytes(values: Any) -> Sizes:
    if not len(values.dictionary):
        return np.zeros(len(values), np.int64)
    sizes = value_bytes(values.dictionary)
    indices = pc.fill_null(values.indices.cast(pa.int64()), 0)
    row_sizes: Sizes = sizes[indices.to_numpy(zero_copy_only=False)]
    return row_sizes


def _union_bytes(values: Any) -> Sizes:
    codes = values.type_codes.to_numpy()
    positions = np.arange(len(values))
    if values.type.mode == "dense":
        positions = values.offsets.to_numpy()
    sizes = np.zeros(len(values), np.int64)
    for index, code in enumerate(values.type.type_codes):
        is_child = codes == code
        sizes[is_child] = value_bytes(values.field(index))[positions[is_child]]
    return sizes


def _run_bytes(values: Any) -> Sizes:
    positions = np.arange(values.offset, values.offset + len(values))
    runs = np.searchsorted(values.run_ends.to_numpy(), positions, side="right")
    row_sizes: Sizes = value_bytes(values.values)[runs]
    return row_sizes


def _list_view_bytes(values: Any) -> Sizes:
    """Returns the bytes of lists that may share their items."""
    item_sizes = np.maximum(value_bytes(values.values), ITEM_BYTES)
    totals = np.concatenate([[0], np.cumsum(item_sizes)])
    lengths: Any = pc.fill_null(pc.list_value_length(values), 0)
    counts = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.where(counts > 0, values.offsets.to_numpy(), 0).astype(np.int64)
    row_sizes: Sizes = totals[starts + counts] - totals[starts]
    return row_sizes


def _map_bytes(values: Any) -> Sizes:
    offsets = values.offsets.to_numpy().astype(np.int64)
    count = int(offsets[-1] - offsets[0])
    item_sizes = value_bytes(values.keys.slice(offsets[0], count))
    item_sizes = item_sizes + value_bytes(values.items.slice(offsets[0], count)) + ITEM_BYTES
    return _sums(item_sizes, np.diff(offsets))


def _list_bytes(values: Any) -> Sizes:
    """Returns the bytes of lists in any layout."""
    lengths: Any = pc.fill_null(pc.list_value_length(values), 0)
    item_sizes = np.maximum(value_bytes(values.flatten()), ITEM_BYTES)
    return _sums(item_sizes, lengths.to_numpy(zero_copy_only=False).astype(np.int64))


def _sums(item_sizes: Sizes, lengths: Sizes) -> Sizes:
    """Returns the sum of the items of each list."""
    totals = np.concatenate([[0], np.cumsum(item_sizes)])
    ends = np.cumsum(lengths)
    row_sizes: Sizes = totals[ends] - totals[ends - lengths]
    return row_sizes


def _text_bytes(values: Any) -> Sizes:
    """Returns the bytes of text and bytes, in any layout."""
    if types.is_string_view(values.type) or types.is_binary_view(values.type):
        return _view_bytes(values)
    lengths = pc.fill_null(pc.binary_length(values), 0)
    row_sizes: Sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return row_sizes


def _view_bytes(values: Any) -> Sizes:
    """Returns the bytes of views: the first of the four integers of each is its length."""
    views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)
    lengths = views[values.offset : values.offset + len(values), 0].astype(np.int64)
    is_valid: Any = values.is_valid()
    row_sizes: Sizes = np.where(is_valid.to_numpy(zero_copy_only=False), lengths, 0)
    return row_sizes
