"""Opcodes as data: names, arguments, positions, and what is rejected before it is decoded."""

import pickle
import pickletools

import numpy as np
import pytest

from actors.protocol.errors import ModelError
from actors.weights.pickle_opcodes import MAX_OPCODES, decode


@pytest.mark.parametrize("protocol", [4, 5])
def test_decode_agrees_with_pickletools(protocol: int) -> None:
    array = np.arange(1200, dtype=np.float32).reshape(2, 600)
    data = pickle.dumps({"weight": array, "sizes": (3, 300, 70_000, -1)}, protocol=protocol)
    decoded = list(decode(memoryview(data)))
    expected = list(pickletools.genops(data))
    assert [opcode.name for opcode in decoded] == [opcode.name for opcode, _, _ in expected]
    arguments = [opcode.argument for opcode in decoded]
    assert arguments == [argument for _, argument, _ in expected]
    assert decoded[-1].end == len(data)


def test_decode_returns_long_payloads_as_views() -> None:
    data = pickle.dumps(bytes(5000), protocol=4)
    payloads = [opcode.argument for opcode in decode(memoryview(data)) if "BYTES" in opcode.name]
    assert isinstance(payloads[0], memoryview)


def test_decode_of_a_file_without_stop_raises_within_the_bound() -> None:
    opcodes = decode(memoryview(b"N" * 2 * MAX_OPCODES))
    for _ in range(MAX_OPCODES):
        next(opcodes)
    with pytest.raises(ModelError, match="more than 1000 pickle opcodes"):
        next(opcodes)


def test_decode_of_a_file_that_ends_in_an_argument_raises() -> None:
    with pytest.raises(ValueError, match="4 bytes expected at position 1 of 3"):
        list(decode(memoryview(b"J\x00\x00")))
