"""Reads xAI's tensor files: pickle opcodes become arrays. `pickle_writer.py` writes them.

Nothing in a file is ever executed: the opcodes are read as data, a handful of them is understood,
the names a file may mention are an exact list, and each stands for a plain description of an array.
Anything else is an error. The numbers are not copied: arrays are views of the buffer they were read
from.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from actors.protocol.errors import ModelError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_MIN_VIEW_BYTES = 4096  # payloads of at least this size stay views of the file


class Int8Tensor(NamedTuple):
    """An int8 weight on the host, [..., K, N], and bfloat16 scales of K / G rows, [..., G, N]."""

    weight: np.ndarray
    scales: np.ndarray


HostTensor = np.ndarray | Int8Tensor


def describe(tensor: HostTensor) -> str:
    """Returns type and shape in words, for messages."""
    if isinstance(tensor, Int8Tensor):
        return f"{describe(tensor.weight)} with scales {describe(tensor.scales)}"
    return f"{tensor.dtype.name} {list(tensor.shape)}"


class _Name(NamedTuple):
    """A global the file mentions, from the list below; it is never imported."""

    module: str
    name: str


# grok-1: unpickles, so that a file may run any code; here these names are recognised as data, never
# imported or called
_RECONSTRUCT = (
    _Name("numpy.core.multiarray", "_reconstruct"),
    _Name("numpy._core.multiarray", "_reconstruct"),
)
_FROMBUFFER = (
    _Name("numpy.core.numeric", "_frombuffer"),
    _Name("numpy._core.numeric", "_frombuffer"),
)
_NDARRAY = _Name("numpy", "ndarray")
_DTYPE = _Name("numpy", "dtype")
_BFLOAT16 = _Name("ml_dtypes", "bfloat16")
_QUANTIZED = _Name("__main__", "QuantizedWeight8bit")
_ALLOWED = {*_RECONSTRUCT, *_FROMBUFFER, _NDARRAY, _DTYPE, _BFLOAT16, _QUANTIZED}
_DTYPES = {"f4": np.dtype("<f4"), "i1": np.dtype("i1"), _BFLOAT16: BFLOAT16}


class _Array:
    """An array being described: its data comes with the BUILD opcode."""

    array: np.ndarray | None = None


class _Dtype:
    """An element type being described: its byte order comes with BUILD."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype


class _Quantized:
    """An instance of the reference's QuantizedWeight8bit being described: two arrays, no code."""

    fields: dict[str, Any] | None = None


class _Bytes:
    """A file for pickletools over a buffer; large pieces come out as views."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.position = 0

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes | memoryview:
        piece = self.buffer[self.position : self.position + count]
        self.position += len(piece)
        return piece if count >= _MIN_VIEW_BYTES else bytes(piece)

    def readline(self) -> bytes:
        raise ModelError("it holds opcodes of pickle protocol 0, which xAI's files never do")


# What a damaged stream raises in the reader below; nothing in it runs foreign code.
_DAMAGE_ERRORS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    UnicodeError,
)


def parse(buffer: bytes | memoryview, name: str) -> HostTensor:
    """Returns the tensor of one file, as views of `buffer`.

    Raises:
        ModelError: the file is truncated, damaged, or holds anything but one array or one quantised
            weight.
    """
    try:
        result = _run(_Bytes(memoryview(buffer)))
    except ModelError as error:
        raise ModelError(f"{name}: not a tensor of an xAI checkpoint: {error}") from None
    except _DAMAGE_ERRORS as error:
        cause = str(error) or type(error).__name__
        raise ModelError(f"{name}: truncated or damaged ({cause}); fetch the file again") from error
    if isinstance(result, _Array) and result.array is not None:
        return result.array
    if isinstance(result, _Quantized) and result.fields is not None:
        return _quantized(result.fields, name)
    raise ModelError(
        f"{name}: expected one array or one QuantizedWeight8bit, got "
        f"{type(result).__name__.strip('_')}"
    )


def _quantized(fields: dict[str, Any], name: str) -> Int8Tensor:
    weight = getattr(fields.get("weight"), "array", None)
    scales = getattr(fields.get("scales"), "array", None)
    if len(fields) != 2 or weight is None or scales is None:
        names = ", ".join(sorted(map(str, fields))) or "nothing"
        raise ModelError(
            f"{name}: QuantizedWeight8bit must hold the arrays weight and scales, got {names}"
        )
    return Int8Tensor(weight, scales)


def _run(source: _Bytes) -> object:
    """Interprets the opcodes with a stack of descriptions; returns the value that STOP leaves."""
    stack: list[Any] = []
    memo: list[Any] = []
    opcode: Any
    argument: Any
    for opcode, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
        if opcode.name == "STOP":
            remaining_bytes = len(source.buffer) - source.position
            if len(stack) != 1 or remaining_bytes:
                raise ValueError(f"{remaining_bytes} bytes follow the end")
            return stack[0]
        if opcode.name == "MEMOIZE":
            memo.append(stack[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode.name in _PUSHES:
            stack.append(_PUSHES[opcode.name](argument))
        elif opcode.name in _STEPS:
            _STEPS[opcode.name](stack)
        elif opcode.name not in ("PROTO", "FRAME"):
            raise ModelError(
                f"it holds the pickle opcode {opcode.name}, which xAI's files never do"
            )
    raise ValueError("no end")


class _Mark:
    """Where a MARK opcode was."""


def _identity(value: Any) -> Any:
    return value


_PUSHES: dict[str, Callable[[Any], Any]] = {
    "MARK": lambda _: _Mark(),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _identity),
    **dict.fromkeys(
        ("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        _identity,
    ),
}


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    marks = [index for index, item in enumerate(stack) if isinstance(item, _Mark)]
    index = max(marks)
    items = stack[index + 1 :]
    del stack[index:]
    return items


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def step(stack: list[Any]) -> None:
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)

    return step


def _tuple(stack: list[Any]) -> None:
    items = _pop_to_mark(stack)
    stack.append(tuple(items))


def _setitems(stack: list[Any]) -> None:
    items = _pop_to_mark(stack)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _setitem(stack: list[Any]) -> None:
    value = stack.pop()
    key = stack.pop()
    stack[-1].update({key: value})


def _global(stack: list[Any]) -> None:
    name = stack.pop()
    module = stack.pop()
    mentioned = _Name(module, name)
    if mentioned not in _ALLOWED:
        raise ModelError(
            f"it refers to {module}.{name}; only numpy arrays and QuantizedWeight8bit are accepted"
            ", nothing was run"
        )
    stack.append(mentioned)


def _newobj(stack: list[Any]) -> None:
    arguments = stack.pop()
    mentioned = stack.pop()
    if mentioned != _QUANTIZED or arguments != ():
        raise ModelError(
            f"it creates an object of {_spell(mentioned)}, which is no tensor; nothing was run"
        )
    stack.append(_Quantized())


def _reduce(stack: list[Any]) -> None:
    arguments = stack.pop()
    mentioned = stack.pop()
    if mentioned in _RECONSTRUCT and arguments[0] == _NDARRAY:
        stack.append(_Array())
    elif mentioned == _DTYPE:
        if arguments[0] not in _DTYPES:
            raise ModelError(
                f"it holds elements of type {_spell(arguments[0])}; expected float32 (f4), int8 "
                "(i1) or bfloat16"
            )
        stack.append(_Dtype(_DTYPES[arguments[0]]))
    elif mentioned in _FROMBUFFER:
        data, dtype, shape, order = arguments
        stack.append(_array(data, dtype, shape, order == "F"))
    else:
        raise ModelError(f"it calls {_spell(mentioned)}; nothing was run")


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    target = stack[-1]
    if isinstance(target, _Array):
        version, shape, dtype, fortran, data = state
        if version != 1:
            raise ModelError(f"an array's state has version {version!r}, expected 1")
        target.array = _array(data, dtype, shape, fortran).array
    elif isinstance(target, _Dtype):
        if state[1] not in ("<", "|", "="):
            raise ModelError(f"its numbers have byte order {state[1]!r}, expected little-endian")
    elif isinstance(target, _Quantized):
        target.fields = dict(state)
    else:
        raise ModelError("it sets the state of something that is no tensor; nothing was run")


def _array(data: Any, dtype: Any, shape: tuple[int, ...], fortran: bool) -> _Array:
    description = _Array()
    numbers = np.frombuffer(data, dtype.dtype)
    if fortran:
        description.array = numbers.reshape(shape[::-1]).T
    else:
        description.array = numbers.reshape(shape)
    return description


def _spell(mentioned: Any) -> str:
    return ".".join(mentioned) if isinstance(mentioned, _Name) else repr(mentioned)[:80]


_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": _tuple,
    "SETITEMS": _setitems,
    "SETITEM": _setitem,
    "STACK_GLOBAL": _global,
    "NEWOBJ": _newobj,
    "REDUCE": _reduce,
    "BUILD": _build,
}
