"""A grammar of pickle opcodes: files that look like tensors and do everything that they can.

As a program, parses `FILES` of them and prints what that took as JSON. A process of its own has a
peak of memory of its own, and none of the type checks of the tests, which take most of the time.
"""

import json
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import parse

FILES = 10_000

STRINGS = (
    "numpy",
    "numpy.core.multiarray",
    "numpy.core.numeric",
    "numpy._core.numeric",
    "_reconstruct",
    "_frombuffer",
    "ndarray",
    "dtype",
    "f4",
    "i1",
    "<",
    ">",
    "F",
    "ml_dtypes",
    "bfloat16",
    "__main__",
    "QuantizedWeight8bit",
    "weight",
    "scales",
    "os",
    "system",
    "\x1b[31m\n",
    "x" * 300,
)
NUMBERS = (0, 1, 2, 3, 255, 2**31 - 1, -1)
LONGEST_PAYLOAD = 2**63

Draw = random.Random


class Step(NamedTuple):
    """Opcodes, how many values they take from the stack, and how many they leave there."""

    opcodes: Callable[[Draw], bytes]
    taken: int
    left: int


def short_string(draw: Draw) -> bytes:
    text = draw.choice(STRINGS).encode()[:255]
    return b"\x8c" + struct.pack("<B", len(text)) + text


def long_string(draw: Draw) -> bytes:
    text = draw.choice(STRINGS).encode()
    length = draw.choice((len(text), len(text), len(text), 2**32 - 1))
    return b"X" + struct.pack("<I", length) + text


def number(draw: Draw) -> bytes:
    value = draw.choice(NUMBERS)
    if 0 <= value < 256:
        return b"K" + struct.pack("<B", value)
    return b"J" + struct.pack("<i", value)


def long_number(draw: Draw) -> bytes:
    length = draw.choice((0, 1, 8, 255))
    return b"\x8a" + struct.pack("<B", length) + draw.randbytes(length)


def payload(draw: Draw) -> bytes:
    data = bytes(draw.choice((0, 1, 4, 24, 4096)))
    length = draw.choice((*[len(data)] * 9, LONGEST_PAYLOAD))
    if draw.random() < 0.2 or length == LONGEST_PAYLOAD:
        return b"\x8e" + struct.pack("<Q", length) + data
    return b"B" + struct.pack("<I", length) + data


def recall(draw: Draw) -> bytes:
    return b"h" + struct.pack("<B", draw.choice((0, 0, 0, 1, 2, 3, 5, 8)))


def any_name(draw: Draw) -> bytes:
    return short_string(draw) + short_string(draw) + b"\x93"


def allowed_name(draw: Draw) -> bytes:
    return draw.choice(
        (
            b"\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93",
            b"\x8c\x12numpy.core.numeric\x8c\x0b_frombuffer\x93",
            b"\x8c\x05numpy\x8c\x07ndarray\x93",
            b"\x8c\x05numpy\x8c\x05dtype\x93",
            b"\x8c\x08__main__\x8c\x13QuantizedWeight8bit\x93",
        )
    )


def quantized(_: Draw) -> bytes:
    return b"\x8c\x08__main__\x8c\x13QuantizedWeight8bit\x93)\x81"


def doubled_tuples(draw: Draw) -> bytes:
    """A tuple of two references to a tuple of two references to …: 2^depth values when walked."""
    first = draw.choice((0, 0, 0, 1, 2))  # entries of the memo so far, if the guess is right
    entries = range(first, first + draw.choice((10, 30, 90)))
    return b")" + b"".join(b"\x94h" + bytes([entry]) + b"\x86" for entry in entries)


def deep_tuples(draw: Draw) -> bytes:
    return b")" + b"\x85" * draw.choice((10, 100, 900))


def array(draw: Draw) -> bytes:
    """An array as xAI's files have it, in which one part may be anything."""
    parts = [
        b"\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93",
        b"\x8c\x05numpy\x8c\x07ndarray\x93",
        b"K\x00\x85",
        b"C\x01b",
        b"\x87R",
        b"(K\x01K\x02K\x03",
        b"\x86",
        b"\x8c\x05numpy\x8c\x05dtype\x93",
        b"\x8c\x02f4",
        b"\x89\x88\x87R(K\x03",
        b"\x8c\x01<",
        b"NNNNNNtb",
        b"\x89",
        b"C\x18" + bytes(24),
        b"tb",
    ]
    if draw.random() < 0.8:
        position = draw.randrange(len(parts))
        parts[position] = draw.choice(STEPS).opcodes(draw)
    return b"".join(parts)


def any_byte(draw: Draw) -> bytes:
    return draw.randbytes(1)


def opcode(code: bytes, taken: int, left: int) -> Step:
    return Step(lambda _: code, taken, left)


STEPS = (
    Step(short_string, 0, 1),
    Step(short_string, 0, 1),
    Step(long_string, 0, 1),
    Step(number, 0, 1),
    Step(number, 0, 1),
    Step(long_number, 0, 1),
    Step(payload, 0, 1),
    Step(recall, 0, 1),
    Step(any_name, 0, 1),
    Step(allowed_name, 0, 1),
    Step(allowed_name, 0, 1),
    Step(quantized, 0, 1),
    Step(doubled_tuples, 0, 1),
    Step(deep_tuples, 0, 1),
    Step(array, 0, 1),
    Step(array, 0, 1),
    Step(any_byte, 0, 0),
    opcode(b"(", 0, 0),
    opcode(b"N", 0, 1),
    opcode(b"\x88", 0, 1),
    opcode(b"\x89", 0, 1),
    opcode(b")", 0, 1),
    opcode(b"}", 0, 1),
    opcode(b"\x94", 1, 1),
    opcode(b"\x94", 1, 1),
    opcode(b"\x85", 1, 1),
    opcode(b"\x86", 2, 1),
    opcode(b"\x87", 3, 1),
    opcode(b"(t", 0, 1),
    opcode(b"t", 1, 1),
    opcode(b"s", 3, 1),
    opcode(b"u", 2, 1),
    opcode(b"\x93", 2, 1),
    opcode(b"\x81", 2, 1),
    opcode(b")\x81", 1, 1),
    opcode(b"R", 2, 1),
    opcode(b"b", 2, 1),
)


def hostile_pickle(seed: int) -> bytes:
    """Returns one file of the grammar: most have enough values on the stack for every opcode."""
    draw = random.Random(seed)
    parts = [b"\x80\x04"]
    depth = 0
    for _ in range(draw.choice((1, 3, 10, 30))):
        step = draw.choice(STEPS)
        if step.taken > depth and draw.random() < 0.97:
            continue
        parts.append(step.opcodes(draw))
        depth = max(0, depth - step.taken) + step.left
    parts.append(draw.choice((b".", b".", b".", b"b.", b"R.", b"\x81.", b"", b"..")))
    return b"".join(parts)


def parse_all() -> dict[str, Any]:
    """Parses the files; returns the distinct messages of their errors, CPU time and memory."""
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    longest_s = 0.0
    tensors = 0
    messages = set()
    for seed in range(FILES):
        data = hostile_pickle(seed)
        began_s = time.process_time()
        try:
            parse(data, "file")
            tensors += 1
        except ModelError as error:
            messages.add(str(error))
        longest_s = max(longest_s, time.process_time() - began_s)

    extra_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before
    return {
        "tensors": tensors,
        "messages": sorted(messages),
        "longest_cpu_s": longest_s,
        "extra_bytes": extra_kib * 1024,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(parse_all()))
