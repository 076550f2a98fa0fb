"""Headers of safetensors files: ranges of their arrays, and refusal of everything else."""

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import BFLOAT16
from actors.weights.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, parse_header


def header_of(entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(dtype: str, shape: list[Any], start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_header_of_the_library_gives_the_bytes_of_each_array() -> None:
    arrays: dict[str, np.ndarray] = {
        "norm": np.arange(3, dtype=np.float32),
        "values.0": np.arange(-4, 4, dtype=np.int8).reshape(2, 4),
        "scales": np.arange(4).astype(BFLOAT16).reshape(1, 4),
    }
    data = safetensors.numpy.save(arrays, {"format": "any"})
    stored, begin = parse_header(data, len(data), "file")
    assert stored.keys() == arrays.keys()
    for name, array in arrays.items():
        place = stored[name]
        assert (place.dtype, place.shape) == (array.dtype, array.shape)
        assert data[place.start : place.end] == array.tobytes()
    assert begin == LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")


def test_header_needs_only_the_first_bytes_of_the_file() -> None:
    head = header_of({"a": entry("F32", [1000], 0, 4000)})
    stored, begin = parse_header(head, len(head) + 4000, "file")
    assert begin == len(head)
    assert (stored["a"].start, stored["a"].end) == (begin, begin + 4000)


def test_header_of_an_empty_array_is_valid() -> None:
    head = header_of({"a": entry("I8", [0, 4], 0, 0)})
    stored, begin = parse_header(head, len(head), "file")
    assert stored["a"].shape == (0, 4)
    assert stored["a"].start == stored["a"].end == begin


def test_header_that_is_cut_off_raises() -> None:
    head = header_of({"a": entry("I8", [4], 0, 4)})
    message = rf"file: truncated .*its header would take {len(head) - 8} of {len(head) + 4} bytes"
    with pytest.raises(ModelError, match=message):
        parse_header(head[:-1], len(head) + 4, "file")


def test_header_beyond_the_limit_raises() -> None:
    head = header_of({"a" * MAX_HEADER_BYTES: entry("I8", [4], 0, 4)})
    with pytest.raises(ModelError, match="file: truncated or no safetensors file"):
        parse_header(head, len(head) + 4, "file")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": entry("F64", [1], 0, 8)}, "element type 'F64', expected one of F32, I8, BF16"),
        ({"a": entry("I8", [5], 0, 8)}, r"8 bytes for int8 \[5\]"),
        ({"a": entry("F32", [2], 0, 2)}, r"2 bytes for float32 \[2\]"),
        ({"a": entry("I8", [8.0], 0, 8)}, "not a whole number"),
        ({"a": entry("I8", [-8], 8, 0)}, "not a whole number"),
        ({"a": entry("I8", [True, 8], 0, 8)}, "not a whole number"),
        ({"a": {"dtype": "I8", "shape": [8]}}, "KeyError"),
        ({"a": entry("I8", [4], 4, 8)}, "a begins at byte"),
        ({"a": entry("I8", [4], 0, 4)}, r"but its header describes \d+; the file is truncated"),
        ({"a": entry("I8", [6], 0, 6), "b": entry("I8", [4], 4, 8)}, "b begins at byte"),
        ({"a": entry("I8", [16], 0, 16)}, "but its header describes"),
    ],
)
def test_header_that_contradicts_eight_bytes_raises(entries: Any, message: str) -> None:
    head = header_of(entries)
    with pytest.raises(ModelError, match=f"file: .*{message}"):
        parse_header(head, len(head) + 8, "file")


@given(
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=4),
    kept=st.one_of(st.none(), st.integers(0, 2000)),
)
def test_damaged_header_raises_or_stays_inside_the_file(
    flips: list[tuple[int, int]], kept: int | None
) -> None:
    arrays: dict[str, np.ndarray] = {
        f"values.{n}": np.full((3, n + 1), n, np.int8) for n in range(4)
    }
    whole = bytearray(safetensors.numpy.save(arrays))
    for position, flip in flips:
        whole[position % len(whole)] ^= flip
    data = bytes(whole[:kept])
    try:
        found, begin = parse_header(data, len(data), "file")
    except ModelError:
        return
    assert sum(array.end - array.start for array in found.values()) == len(data) - begin
    assert all(begin <= array.start <= array.end <= len(data) for array in found.values())
