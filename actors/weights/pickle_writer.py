"""Writes xAI's tensor files, identical to CPython's pickles, for the reference's own loader.

The stock pickler cannot write them: it checks that `__main__.QuantizedWeight8bit` exists and names
numpy's modules as today's numpy does.
"""

import struct
from collections.abc import Hashable, Iterator

import numpy as np

from actors.weights.pickle_reader import BFLOAT16, HostTensor, Int8Tensor

_MIN_FRAMELESS_BYTES = 64 * 1024  # payloads of at least this size stand outside of frames
_MIN_FRAME_BYTES = 4


def pickle_tensor(tensor: HostTensor) -> Iterator[bytes | memoryview]:
    """Yields the file of one tensor, a protocol-4 pickle, in pieces.

    The numbers come as views, without a copy.

    Raises:
        ValueError: an array is neither float32, int8 nor bfloat16.
    """
    stream = _Stream()
    if isinstance(tensor, Int8Tensor):
        _quantized(stream, tensor)
    else:
        _array(stream, tensor)
    stream.opcodes(b".")
    yield b"\x80\x04"
    yield from stream.pieces()


class _Stream:
    """The opcodes so far, and the place of each value in the memo."""

    def __init__(self) -> None:
        self.memo: dict[Hashable, int] = {}
        self.count = 0
        self.parts: list[bytearray | tuple[bytes, memoryview]] = [bytearray()]

    def opcodes(self, codes: bytes) -> None:
        tail = self.parts[-1]
        if isinstance(tail, bytearray):
            tail.extend(codes)
        else:
            self.parts.append(bytearray(codes))

    def memoize(self, key: Hashable = None) -> None:
        if key is not None:
            self.memo[key] = self.count
        self.count += 1
        self.opcodes(b"\x94")

    def recall(self, key: Hashable) -> bool:
        """Refers to a value that was written before, if it was."""
        if key not in self.memo:
            return False
        self.opcodes(b"h" + bytes([self.memo[key]]))
        return True

    def text(self, value: str) -> None:
        if not self.recall(value):
            self.opcodes(b"\x8c" + bytes([len(value)]) + value.encode())
            self.memoize(value)

    def name(self, module: str, name: str) -> None:
        if not self.recall((module, name)):
            self.text(module)
            self.text(name)
            self.opcodes(b"\x93")
            self.memoize((module, name))

    def number(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.opcodes(b"K" + struct.pack("<B", value))
        elif 0 <= value < 1 << 16:
            self.opcodes(b"M" + struct.pack("<H", value))
        else:
            self.opcodes(b"J" + struct.pack("<i", value))

    def numbers(self, values: tuple[int, ...]) -> None:
        if len(values) > 3:
            self.opcodes(b"(")
        for value in values:
            self.number(value)
        self.opcodes({1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(values), b"t"))
        self.memoize()

    def payload(self, data: memoryview) -> None:
        if data.nbytes < 1 << 8:
            header = b"C" + struct.pack("<B", data.nbytes)
        elif data.nbytes < 1 << 32:
            header = b"B" + struct.pack("<I", data.nbytes)
        else:
            header = b"\x8e" + struct.pack("<Q", data.nbytes)
        if data.nbytes >= _MIN_FRAMELESS_BYTES:
            self.parts.append((header, data))
        else:
            self.opcodes(header + bytes(data))
        self.memoize()

    def pieces(self) -> Iterator[bytes | memoryview]:
        for part in self.parts:
            if not isinstance(part, bytearray):
                yield from part
                continue
            if len(part) >= _MIN_FRAME_BYTES:
                yield b"\x95" + struct.pack("<Q", len(part))
            yield bytes(part)


def _quantized(stream: _Stream, tensor: Int8Tensor) -> None:
    stream.name("__main__", "QuantizedWeight8bit")
    stream.opcodes(b")\x81")
    stream.memoize()
    stream.opcodes(b"}")
    stream.memoize()
    stream.opcodes(b"(")
    for name, array in zip(tensor._fields, tensor, strict=True):
        stream.text(name)
        _array(stream, array)
    stream.opcodes(b"ub")


def _array(stream: _Stream, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    stream.name("numpy.core.multiarray", "_reconstruct")
    stream.name("numpy", "ndarray")
    stream.numbers((0,))
    if not stream.recall(b"b"):
        stream.opcodes(b"C\x01b")
        stream.memoize(b"b")
    stream.opcodes(b"\x87")
    stream.memoize()
    stream.opcodes(b"R")
    stream.memoize()
    stream.opcodes(b"(K\x01")
    stream.numbers(array.shape)
    _dtype(stream, array.dtype)
    stream.opcodes(b"\x89")
    stream.payload(array.reshape(-1).view(np.uint8).data)
    stream.opcodes(b"t")
    stream.memoize()
    stream.opcodes(b"b")


def _dtype(stream: _Stream, dtype: np.dtype) -> None:
    stream.name("numpy", "dtype")
    if dtype == BFLOAT16:
        stream.name("ml_dtypes", "bfloat16")
        order = "<"
        sizes = (2, 2, 64)
    elif dtype in (np.dtype("<f4"), np.dtype("i1")):
        stream.text(dtype.str[1:])
        order = dtype.str[0]
        sizes = (-1, -1, 0)
    else:
        raise ValueError(
            f"xAI's files hold float32, int8 and bfloat16, got an array of {dtype.name}"
        )
    stream.opcodes(b"\x89\x88\x87")
    stream.memoize()
    stream.opcodes(b"R")
    stream.memoize()
    stream.opcodes(b"(K\x03")
    stream.text(order)
    stream.opcodes(b"NNN")
    for size in sizes:
        stream.number(size)
    stream.opcodes(b"t")
    stream.memoize()
    stream.opcodes(b"b")
