"""Reads xAI's tensor files: pickle opcodes become arrays. `pickle_writer.py` writes them.

Nothing in a file is ever executed: `pickle_opcodes.py` decodes the opcodes as data, the names that
a file may mention are an exact list, and each stands for a plain description of an array. Anything
else is an error. The numbers are not copied: arrays are views of the buffer they were read from.

A file may be hostile. Opcodes and strings are bounded in number and length, values are compared
and shown only after their type is checked (a tuple of tuples of tuples is small to write and takes
for ever to walk), and messages quote at most a few characters of a file, escaped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from actors.protocol.errors import ModelError
from actors.protocol.plain_text import bare
from actors.weights.pickle_opcodes import decode

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MAX_DIMENSION = 1 << 62
MAX_NAME_CHARS = 80  # of a string of a file in a message
MAX_CAUSE_CHARS = 200
MAX_LISTED_NAMES = 5


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


# What a damaged stream raises in the reader below; nothing in it runs foreign code.
_DAMAGE_ERRORS = (ValueError, IndexError, TypeError, OverflowError)


def parse(buffer: bytes | memoryview, name: str) -> HostTensor:
    """Returns the tensor of one file, as views of `buffer`.

    Raises:
        ModelError: the file is truncated, damaged, or holds anything but one array or one quantised
            weight.
    """
    try:
        result = _run(memoryview(buffer))
    except ModelError as error:
        raise ModelError(f"{name}: not a tensor of an xAI checkpoint: {error}") from None
    except _DAMAGE_ERRORS as error:
        cause = bare(str(error) or type(error).__name__, MAX_CAUSE_CHARS)
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
    weight = _array_in(fields.get("weight"))
    scales = _array_in(fields.get("scales"))
    if len(fields) == 2 and weight is not None and scales is not None:
        return Int8Tensor(weight, scales)

    names = sorted(bare(field, MAX_NAME_CHARS) for field in fields)
    listed = ", ".join(names[:MAX_LISTED_NAMES]) or "nothing"
    if len(names) > MAX_LISTED_NAMES:
        listed += f" and {len(names) - MAX_LISTED_NAMES} more"
    raise ModelError(
        f"{name}: QuantizedWeight8bit must hold the arrays weight and scales, got {listed}"
    )


def _array_in(value: object) -> np.ndarray | None:
    if isinstance(value, _Array):
        return value.array
    return None


def _run(buffer: memoryview) -> object:
    """Interprets the opcodes with a stack of descriptions; returns the value that STOP leaves."""
    stack: list[Any] = []
    memo: list[Any] = []
    opcode: Any
    for opcode in decode(buffer):
        if opcode.name == "STOP":
            remaining_bytes = len(buffer) - opcode.end
            if remaining_bytes:
                raise ValueError(f"{remaining_bytes} bytes follow the end")
            if len(stack) != 1:
                raise ValueError(f"it describes {len(stack)} values, expected one")
            return stack[0]
        if opcode.name == "MEMOIZE":
            memo.append(stack[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[opcode.argument])
        elif opcode.name in _PUSHES:
            stack.append(_PUSHES[opcode.name](opcode.argument))
        elif opcode.name in _STEPS:
            _STEPS[opcode.name](stack)
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
    index = len(stack) - 1
    while index >= 0 and not isinstance(stack[index], _Mark):
        index -= 1
    if index < 0:
        raise ValueError("no MARK on the stack")

    items = stack[index + 1 :]
    del stack[index:]
    return items


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def step(stack: list[Any]) -> None:
        if len(stack) < count:
            raise ValueError(f"a tuple of {count} with {len(stack)} values on the stack")
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)

    return step


def _tuple(stack: list[Any]) -> None:
    items = _pop_to_mark(stack)
    stack.append(tuple(items))


def _setitems(stack: list[Any]) -> None:
    items = _pop_to_mark(stack)
    for key, value in zip(items[::2], items[1::2], strict=True):
        _set(stack[-1], key, value)


def _setitem(stack: list[Any]) -> None:
    value = stack.pop()
    key = stack.pop()
    _set(stack[-1], key, value)


def _set(target: Any, key: Any, value: Any) -> None:
    if not isinstance(target, dict) or not isinstance(key, str):
        raise ModelError(
            f"it sets an item of {_spell(target)} by {_spell(key)}; expected a dict and strings"
        )
    target[key] = value


def _global(stack: list[Any]) -> None:
    name = stack.pop()
    module = stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise ModelError(
            f"it refers to a name by {_spell(module)} and {_spell(name)}; expected strings"
        )
    mentioned = _Name(module, name)
    if mentioned not in _ALLOWED:
        raise ModelError(
            f"it refers to {_spell(mentioned)}; only numpy arrays and QuantizedWeight8bit are "
            "accepted, nothing was run"
        )
    stack.append(mentioned)


def _newobj(stack: list[Any]) -> None:
    arguments = stack.pop()
    mentioned = stack.pop()
    is_empty = isinstance(arguments, tuple) and not arguments
    if not _is_one_of(mentioned, (_QUANTIZED,)) or not is_empty:
        raise ModelError(
            f"it creates an object of {_spell(mentioned)}, which is no tensor; nothing was run"
        )
    stack.append(_Quantized())


def _reduce(stack: list[Any]) -> None:
    arguments = stack.pop()
    mentioned = stack.pop()
    if not isinstance(arguments, tuple) or not arguments:
        raise ModelError(f"it calls {_spell(mentioned)} without arguments; nothing was run")
    if _is_one_of(mentioned, _RECONSTRUCT) and _is_one_of(arguments[0], (_NDARRAY,)):
        stack.append(_Array())
    elif _is_one_of(mentioned, (_DTYPE,)):
        stack.append(_Dtype(_element_type(arguments[0])))
    elif _is_one_of(mentioned, _FROMBUFFER):
        data, dtype, shape, order = arguments
        is_fortran = isinstance(order, str) and order == "F"
        stack.append(_array(data, dtype, shape, is_fortran))
    else:
        raise ModelError(f"it calls {_spell(mentioned)}; nothing was run")


def _element_type(value: Any) -> np.dtype:
    is_name = isinstance(value, str | _Name)
    if not is_name or value not in _DTYPES:
        raise ModelError(
            f"it holds elements of type {_spell(value)}; expected float32 (f4), int8 (i1) or "
            "bfloat16"
        )
    return _DTYPES[value]


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    target = stack[-1]
    if isinstance(target, _Array) and isinstance(state, tuple):
        version, shape, dtype, fortran, data = state
        if type(version) is not int or version != 1:
            raise ModelError(f"an array's state has version {_spell(version)}, expected 1")
        target.array = _array(data, dtype, shape, fortran is True).array
    elif isinstance(target, _Dtype) and isinstance(state, tuple):
        byte_order = state[1]
        if not isinstance(byte_order, str) or byte_order not in ("<", "|", "="):
            raise ModelError(
                f"its numbers have byte order {_spell(byte_order)}, expected little-endian"
            )
    elif isinstance(target, _Quantized) and isinstance(state, dict):
        target.fields = dict(state)
    else:
        raise ModelError("it sets the state of something that is no tensor; nothing was run")


def _array(data: Any, dtype: Any, shape: Any, is_fortran: bool) -> _Array:
    if not isinstance(data, bytes | memoryview) or not isinstance(dtype, _Dtype):
        raise ModelError(
            f"an array has numbers from {_spell(data)} of type {_spell(dtype)}; expected bytes and "
            "a dtype"
        )
    if not isinstance(shape, tuple) or not all(_is_dimension(size) for size in shape):
        raise ModelError("an array's shape is not a tuple of whole numbers")

    description = _Array()
    numbers = np.frombuffer(data, dtype.dtype)
    if is_fortran:
        description.array = numbers.reshape(shape[::-1]).T
    else:
        description.array = numbers.reshape(shape)
    return description


def _is_dimension(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_DIMENSION


def _is_one_of(value: Any, names: tuple[_Name, ...]) -> bool:
    """Whether a value is one of these names; never walks a tuple that a file built."""
    return isinstance(value, _Name) and value in names


def _spell(value: Any) -> str:
    """Returns a value for a message; of what a file built, only the type."""
    if isinstance(value, _Name):
        return f"{bare(value.module, MAX_NAME_CHARS)}.{bare(value.name, MAX_NAME_CHARS)}"
    if isinstance(value, str):
        return f"'{bare(value, MAX_NAME_CHARS)}'"
    if type(value) is int and abs(value) < MAX_DIMENSION:
        return str(value)
    return f"a value of type {type(value).__name__.strip('_')}"


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
