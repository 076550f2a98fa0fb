"""Decodes the few pickle opcodes of xAI's tensor files, within bounds that no file can exceed.

Python's `pickletools` decodes every opcode before a reader can reject it: a number of a gigabyte, a
line without end. Here the opcode is recognised first, and a length is checked before its bytes are
read. The opcodes and their arguments are those of the module `pickletools`.
"""

import pickletools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from actors.protocol.errors import ModelError

# xAI's files have 40 to 80 opcodes, names of at most 30 bytes and a memo of some 30 values.
MAX_OPCODES = 1000
MAX_STRING_BYTES = 256
MAX_COPIED_BYTES = 4096  # longer payloads are views of the file

Argument = int | str | bytes | memoryview | None


class Opcode(NamedTuple):
    """One opcode, its argument, and the position behind both."""

    name: str
    argument: Argument
    end: int


# Opcodes by their byte. The format is that of the argument, or of the length that precedes it.
_WITHOUT_ARGUMENT = {
    b".": "STOP",
    b"(": "MARK",
    b"N": "NONE",
    b"\x88": "NEWTRUE",
    b"\x89": "NEWFALSE",
    b")": "EMPTY_TUPLE",
    b"}": "EMPTY_DICT",
    b"\x85": "TUPLE1",
    b"\x86": "TUPLE2",
    b"\x87": "TUPLE3",
    b"t": "TUPLE",
    b"s": "SETITEM",
    b"u": "SETITEMS",
    b"\x93": "STACK_GLOBAL",
    b"\x94": "MEMOIZE",
    b"\x81": "NEWOBJ",
    b"R": "REDUCE",
    b"b": "BUILD",
}
_NUMBERS = {
    b"\x80": ("PROTO", "<B"),
    b"\x95": ("FRAME", "<Q"),
    b"K": ("BININT1", "<B"),
    b"M": ("BININT2", "<H"),
    b"J": ("BININT", "<i"),
    b"h": ("BINGET", "<B"),
    b"j": ("LONG_BINGET", "<I"),
}
_STRINGS = {
    b"\x8c": ("SHORT_BINUNICODE", "<B"),
    b"X": ("BINUNICODE", "<I"),
}
_LONG_NUMBERS = {b"\x8a": ("LONG1", "<B")}
_PAYLOADS = {
    b"C": ("SHORT_BINBYTES", "<B"),
    b"B": ("BINBYTES", "<I"),
    b"\x8e": ("BINBYTES8", "<Q"),
    b"\x96": ("BYTEARRAY8", "<Q"),
}


def decode(buffer: memoryview) -> Iterator[Opcode]:
    """Yields the opcodes of a file up to STOP.

    Raises:
        ModelError: an opcode that xAI's files never have, or more or longer ones than they have.
        ValueError: the file ends within an opcode, or a string is not UTF-8.
    """
    position = 0
    for _ in range(MAX_OPCODES):
        opcode = _decode_one(buffer, position)
        yield opcode
        if opcode.name == "STOP":
            return
        position = opcode.end
    raise ModelError(f"it has more than {MAX_OPCODES} pickle opcodes, xAI's files have some 80")


def _decode_one(buffer: memoryview, position: int) -> Opcode:
    code = _read(buffer, position, 1).tobytes()
    argument_at = position + 1
    if code in _WITHOUT_ARGUMENT:
        return Opcode(_WITHOUT_ARGUMENT[code], None, argument_at)
    if code in _NUMBERS:
        name, number_format = _NUMBERS[code]
        number, end = _number(buffer, argument_at, number_format)
        return Opcode(name, number, end)
    if code in _STRINGS:
        return _decode_string(buffer, argument_at, *_STRINGS[code])
    if code in _LONG_NUMBERS:
        name, length_format = _LONG_NUMBERS[code]
        length, start = _number(buffer, argument_at, length_format)
        number_bytes = _read(buffer, start, length)
        number = int.from_bytes(number_bytes, "little", signed=True)
        return Opcode(name, number, start + length)
    if code in _PAYLOADS:
        name, length_format = _PAYLOADS[code]
        length, start = _number(buffer, argument_at, length_format)
        payload: bytes | memoryview = _read(buffer, start, length)
        if length < MAX_COPIED_BYTES:
            payload = bytes(payload)
        return Opcode(name, payload, start + length)
    raise ModelError(f"it holds {_name_of(code)}, which xAI's files never do")


def _decode_string(buffer: memoryview, position: int, name: str, length_format: str) -> Opcode:
    length, start = _number(buffer, position, length_format)
    if length > MAX_STRING_BYTES:
        raise ModelError(
            f"it holds a string of {length} bytes, expected at most {MAX_STRING_BYTES}"
        )
    text = bytes(_read(buffer, start, length)).decode()
    return Opcode(name, text, start + length)


def _number(buffer: memoryview, position: int, number_format: str) -> tuple[int, int]:
    """Returns a number of the file and the position behind it."""
    size = struct.calcsize(number_format)
    (number,) = struct.unpack(number_format, _read(buffer, position, size))
    return number, position + size


def _read(buffer: memoryview, start: int, length: int) -> memoryview:
    end = start + length
    if end > len(buffer):
        raise ValueError(f"{length} bytes expected at position {start} of {len(buffer)}")
    return buffer[start:end]


def _name_of(code: bytes) -> str:
    """Returns an opcode for a message."""
    for opcode in pickletools.opcodes:
        if opcode.code.encode("latin-1") != code:
            continue
        if opcode.proto == 0:
            return "opcodes of pickle protocol 0"
        return f"the pickle opcode {opcode.name}"
    return f"the byte 0x{code.hex()} in place of a pickle opcode"
