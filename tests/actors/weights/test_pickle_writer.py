"""xAI's tensor files: byte for byte what CPython's pickler writes, in pieces without copies."""

import pickle
import pickletools
from typing import Any

import numpy as np
import pytest

from actors.weights.pickle_reader import BFLOAT16, HostTensor, Int8Tensor, parse
from actors.weights.pickle_writer import pickle_tensor


def file_of(tensor: HostTensor) -> bytes:
    return b"".join(pickle_tensor(tensor))


def opcodes_of(data: bytes) -> list[tuple[str, Any]]:
    """Returns the opcodes with their arguments; numpy's modules by their older names."""
    opcodes = []
    for opcode, argument, _ in pickletools.genops(data):
        value = argument
        if isinstance(value, str):
            value = value.replace("numpy._core", "numpy.core")
        if opcode.name == "FRAME":  # its length depends on the name of the module
            value = None
        opcodes.append((opcode.name, value))
    return opcodes


# Around each limit of the format: one byte or two of length, inside of a frame or outside.
@pytest.mark.parametrize("size", [1, 63, 64, 16_383, 16_384, 20_000])
def test_float32_arrays_match_the_stock_pickler(size: int) -> None:
    array = np.arange(size, dtype=np.float32)
    assert opcodes_of(file_of(array)) == opcodes_of(pickle.dumps(array, protocol=4))


@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (300, 2), (70_000, 1)])
def test_int8_arrays_of_any_shape_match_the_stock_pickler(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.int8)
    assert opcodes_of(file_of(array)) == opcodes_of(pickle.dumps(array, protocol=4))


def test_weight_survives_a_round_trip() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (2, 8, 6)).astype(np.int8)
    scales = rng.normal(0, 1, (2, 4, 6)).astype(BFLOAT16)
    tensor = parse(file_of(Int8Tensor(weight, scales)), "file")
    assert isinstance(tensor, Int8Tensor)
    np.testing.assert_array_equal(tensor.weight, weight)
    np.testing.assert_array_equal(tensor.scales, scales)
    assert tensor.scales.dtype == BFLOAT16


def test_array_that_is_not_contiguous_is_written_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(parse(file_of(array), "file"), array)


def test_large_payload_is_a_view_of_the_array() -> None:
    """Weights of 300 GB are written without a second copy in memory."""
    array = np.zeros(100_000, np.int8)
    views = [piece for piece in pickle_tensor(array) if isinstance(piece, memoryview)]
    (view,) = views
    assert np.shares_memory(np.frombuffer(view, np.int8), array)


def test_write_puts_large_payloads_outside_of_frames() -> None:
    data = file_of(np.zeros(200_000, np.float32))
    frames = [
        argument for opcode, argument, _ in pickletools.genops(data) if opcode.name == "FRAME"
    ]
    assert sum(frames) < 300
    np.testing.assert_array_equal(parse(data, "x"), np.zeros(200_000, np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.float16])
def test_write_of_unsupported_types_raises(dtype: Any) -> None:
    message = f"hold float32, int8 and bfloat16, got an array of {np.dtype(dtype).name}"
    with pytest.raises(ValueError, match=message):
        file_of(np.zeros(3, dtype))
