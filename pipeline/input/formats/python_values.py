"""Arrow columns → Python values: prompts, continuations, ids and sampling parameters."""

from array import array
from decimal import Decimal
from itertools import chain, pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from pipeline.input.common_types import is_bytes

INT32 = np.iinfo(np.int32)


def python_values(column: "pa.ChunkedArray[Any]") -> tuple[list[Any], list[int]]:
    """Returns the values of a column, bytes as text and decimals as numbers.

    Returns:
        The values, and the positions whose bytes are not UTF-8; their value is None.
    """
    if types.is_dictionary(column.type):
        return _dictionary_values(column)
    if _is_integer_list(column.type):
        return list(chain.from_iterable(map(_integer_lists, column.chunks))), []

    try:
        values = column.to_pylist()
        if _has_bytes_or_decimals(column.type):
            values = list(map(_plain_value, values))
    except UnicodeDecodeError:
        return _readable_values(column)
    return values, []


def _dictionary_values(column: "pa.ChunkedArray[Any]") -> tuple[list[Any], list[int]]:
    """Returns the values of a dictionary; rows share those that are equal."""
    values: list[Any] = []
    unreadable: list[int] = []
    chunks: list[Any] = column.chunks
    for chunk in chunks:
        indices = pc.fill_null(chunk.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        used, positions = np.unique(indices, return_inverse=True)
        entries = chunk.dictionary.take(pa.array(used, mask=used < 0))
        texts, faulty = python_values(pa.chunked_array([entries], entries.type))
        is_faulty = np.isin(positions, faulty)
        unreadable += (np.flatnonzero(is_faulty) + len(values)).tolist()
        values += [texts[position] for position in positions.tolist()]
    return values, unreadable


def _readable_values(column: "pa.ChunkedArray[Any]") -> tuple[list[Any], list[int]]:
    """Converts values one by one, because some of them are not UTF-8."""
    values: list[Any] = []
    unreadable: list[int] = []
    for row, scalar in enumerate(column):
        try:
            values.append(_plain_value(scalar.as_py()))
        except UnicodeDecodeError:
            values.append(None)
            unreadable.append(row)
    return values, unreadable


def _has_bytes_or_decimals(data_type: Any) -> bool:
    if types.is_nested(data_type) and not types.is_run_end_encoded(data_type):
        fields = [data_type.field(index) for index in range(data_type.num_fields)]
        return any(_has_bytes_or_decimals(field.type) for field in fields)
    if types.is_dictionary(data_type) or types.is_run_end_encoded(data_type):
        return _has_bytes_or_decimals(data_type.value_type)
    return bool(types.is_decimal(data_type)) or is_bytes(data_type)


def _plain_value(value: Any) -> Any:
    """Returns bytes as text and decimals as integers, or as floats if they have a fraction."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_plain_value, value))
    if isinstance(value, dict):
        return {key: _plain_value(item) for key, item in value.items()}
    return value


def _is_integer_list(data_type: Any) -> bool:
    is_list = types.is_list(data_type) or types.is_large_list(data_type)
    return is_list and bool(types.is_integer(data_type.value_type))


def _integer_lists(chunk: Any) -> list[Any]:
    """Returns each row as a compact array: the chunk is converted once, then sliced.

    Rows are lists of Python integers if an item is null or beyond int32: the check of the row finds
    what is wrong with it.
    """
    offsets = chunk.offsets.to_numpy()
    offsets_from_zero = offsets - offsets[0]
    items = chunk.values.slice(offsets[0], offsets_from_zero[-1])
    values = items.to_numpy(zero_copy_only=False)
    if items.null_count or not _fits_int32(values):
        return cast(list[Any], chunk.to_pylist())

    flat = array("i")
    flat.frombytes(np.ascontiguousarray(values, np.int32).tobytes())
    rows: list[Any] = [flat[start:stop] for start, stop in pairwise(offsets_from_zero.tolist())]
    if chunk.null_count:
        for row in np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False)):
            rows[row] = None
    return rows


def _fits_int32(values: Any) -> bool:
    return not values.size or bool(INT32.min <= values.min() <= values.max() <= INT32.max)
