"""Calls of a function in another process, with arguments and results as plain values.

Values travel as JSON, each as a list of its type and content: no object of the other process takes
part in a comparison, and nothing is executed to read one. A value of another type arrives as an
`OpaqueValue`, which equals nothing. Uses the standard library only.
"""

import builtins
import json
import os
import struct
from collections.abc import Callable
from typing import Any

LENGTH = struct.Struct("<Q")
MAX_MESSAGE_BYTES = 2**26
SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
READY = "ready"
RESULT = "result"
ERROR = "error"


class OpaqueValue:
    """A value of a type that does not travel."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<a value of type {self.type_name}>"


class RemoteFunction:
    """A function of the process at the other end of a socket."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function and returns its result.

        Raises:
            EOFError: the other process has ended.
            Exception: of the class that the function raised, if that is a built-in one.
        """
        send(self._descriptor, [self.__name__, encode(args), encode(kwargs)])
        outcome, content = receive(self._descriptor)
        if outcome == RESULT:
            return decode(content)

        name, message = content
        error = getattr(builtins, str(name), None)
        if isinstance(error, type) and issubclass(error, Exception):
            raise error(message)
        raise RuntimeError(f"{name}: {message}")


def serve_calls(descriptor: int, namespace: dict[str, Any]) -> None:
    """Reports that `namespace` is complete, and answers calls of its functions until the end."""
    send(descriptor, [READY, None])
    while True:
        name, args, kwargs = receive(descriptor)
        try:
            result = namespace[name](*decode(args), **decode(kwargs))
            reply = [RESULT, encode(result)]
        # the caller raises it, whatever it is
        except Exception as error:  # noqa: BLE001
            reply = [ERROR, [type(error).__name__, str(error)]]
        send(descriptor, reply)


def encode(value: Any) -> Any:
    """Returns a value as JSON can hold it."""
    if value is None or isinstance(value, bool):
        return [type(value).__name__, value]
    if isinstance(value, str):
        return ["str", str(value)]
    if isinstance(value, int):
        return ["int", hex(value)]
    if isinstance(value, float):
        return ["float", float.hex(value)]
    if isinstance(value, complex):
        return ["complex", [value.real.hex(), value.imag.hex()]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        pairs = [[encode(key), encode(item)] for key, item in value.items()]
        return ["dict", pairs]
    for name, sequence in SEQUENCES.items():
        if isinstance(value, sequence):  # type: ignore[arg-type]
            return [name, [encode(item) for item in value]]
    return _encode_other(value)


def _encode_other(value: Any) -> Any:
    is_number = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    if is_number and hasattr(value, "item"):
        return encode(value.item())
    return ["other", type(value).__name__]


def decode(encoded: Any) -> Any:
    """Returns the value of `encode`.

    Raises:
        ValueError: it is not such a value.
    """
    name, content = encoded
    if name in {"NoneType", "bool", "str"}:
        return content
    if name == "int":
        return int(content, 16)
    if name == "float":
        return float.fromhex(content)
    if name == "complex":
        real, imaginary = content
        return complex(float.fromhex(real), float.fromhex(imaginary))
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "dict":
        return {decode(key): decode(item) for key, item in content}
    if name in SEQUENCES:
        return SEQUENCES[name](map(decode, content))
    return OpaqueValue(str(content))


def send(descriptor: int, message: Any) -> None:
    """Writes a message.

    Raises:
        OSError: the other process has ended.
        ValueError: the message is longer than `MAX_MESSAGE_BYTES`.
    """
    content = json.dumps(message).encode()
    if len(content) > MAX_MESSAGE_BYTES:
        raise ValueError(f"expected at most {MAX_MESSAGE_BYTES:,} bytes, got {len(content):,}")

    unsent = memoryview(LENGTH.pack(len(content)) + content)
    while unsent:
        unsent = unsent[os.write(descriptor, unsent) :]


def receive(descriptor: int) -> Any:
    """Returns the next message.

    Raises:
        EOFError: the other process has ended.
        ValueError: the message is longer than `MAX_MESSAGE_BYTES`, or not JSON.
    """
    (length,) = LENGTH.unpack(read_exactly(descriptor, LENGTH.size))
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"expected at most {MAX_MESSAGE_BYTES:,} bytes, got {length:,}")
    return json.loads(read_exactly(descriptor, length))


def read_exactly(descriptor: int, size: int) -> bytes:
    """Returns the next `size` bytes.

    Raises:
        EOFError: there are fewer.
    """
    content = bytearray()
    while len(content) < size:
        piece = os.read(descriptor, size - len(content))
        if not piece:
            raise EOFError(f"expected {size} bytes, got {len(content)}")
        content += piece
    return bytes(content)
