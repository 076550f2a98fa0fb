"""Parses the header of a safetensors file: where its arrays lie.

Trusts nothing: an array outside of the file, or two in one place, is an error before any of it is
read. The library's own reader needs complete local files; devices need ranges of files anywhere.
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from actors.protocol.errors import ModelError
from actors.protocol.plain_text import bare, quoted
from actors.weights.pickle_reader import BFLOAT16

LENGTH_BYTES = 8  # the header's length, little-endian
MAX_HEADER_BYTES = 64 * 1024  # ours take some 2,000
_DTYPES = {"F32": np.dtype("<f4"), "I8": np.dtype("i1"), "BF16": BFLOAT16}


class StoredArray(NamedTuple):
    """An array in a file: bytes [start, end) from the file's beginning."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(head: bytes, size: int, name: str) -> tuple[dict[str, StoredArray], int]:
    """Returns the arrays of a file by name, and where the header ends.

    Args:
        head: the file's first bytes, all of the header at least.
        size: of the whole file.
        name: of the file, for messages.

    Raises:
        ModelError: the header is damaged, or does not describe exactly this many bytes.
    """
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    begin = LENGTH_BYTES + length
    if size < LENGTH_BYTES or length > MAX_HEADER_BYTES or begin > min(size, len(head)):
        raise ModelError(
            f"{name}: truncated or no safetensors file (its header would take {length} of {size} "
            "bytes)"
        )
    try:
        entries = json.loads(head[LENGTH_BYTES:begin].decode(), object_pairs_hook=_unique_keys)
        entries.pop("__metadata__", None)
        arrays = {key: _parse_entry(entry, begin) for key, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{name}: damaged safetensors header ({type(error).__name__}: {str(error)[:100]})"
        ) from error
    position = begin
    for key, array in sorted(arrays.items(), key=lambda item: item[1].start):
        if array.start != position:
            raise ModelError(
                f"{name}: damaged safetensors header: {bare(key, 80)} begins at byte "
                f"{array.start}, expected {position}"
            )
        position = array.end
    if position != size:
        raise ModelError(
            f"{name}: {size} bytes, but its header describes {position}; the file is truncated or "
            "damaged"
        )
    return arrays, begin


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _parse_entry(entry: dict[str, Any], begin: int) -> StoredArray:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if entry["dtype"] not in _DTYPES:
        raise ValueError(
            f"element type {quoted(entry['dtype'])}, expected one of {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[entry["dtype"]]
    numbers = (start, end, *shape)
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
        raise ValueError("an offset or a dimension is not a whole number")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - start} bytes for {dtype.name} {list(shape)}")
    return StoredArray(dtype, shape, begin + start, begin + end)
