"""Pickles that differ from xAI's in one respect: read correctly, or refused by name."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import BFLOAT16, Int8Tensor, parse
from actors.weights.pickle_writer import pickle_tensor
from tests.actors.model.models import CONFORMANCE

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
WEIGHT = Int8Tensor(np.arange(-3, 3, dtype=np.int8).reshape(2, 3), np.ones((1, 3), BFLOAT16))

LINEAR_1 = "tensor00003_000"
NORM = "tensor00001_000"

ROOT = Path(__file__).parents[3]
MAX_CPU_S = 1.0
MAX_EXTRA_BYTES = 100 * 2**20
MAX_MESSAGE_CHARS = 400


def file_of(tensor: Any) -> bytes:
    return b"".join(pickle_tensor(tensor))


def pickled_fields(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Returns the stock pickle of the reference's class with these attributes."""
    reference_class = type("QuantizedWeight8bit", (), {"__module__": "__main__"})
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "QuantizedWeight8bit", reference_class, raising=False)
    instance = reference_class()
    instance.__dict__.update(fields)
    return pickle.dumps(instance, protocol=4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_parse_arrays_of_the_stock_pickler(order: Any) -> None:
    array = np.array(NUMBERS, order=order)
    np.testing.assert_array_equal(parse(pickle.dumps(array, protocol=4), "file"), NUMBERS)


def test_parse_an_array_of_protocol_5() -> None:
    np.testing.assert_array_equal(parse(pickle.dumps(NUMBERS, protocol=5), "file"), NUMBERS)
    fortran = np.asfortranarray(NUMBERS)
    np.testing.assert_array_equal(parse(pickle.dumps(fortran, protocol=5), "file"), NUMBERS)


def test_parse_a_weight_of_the_stock_pickler(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = parse(pickled_fields(WEIGHT._asdict(), monkeypatch), "file")
    assert isinstance(tensor, Int8Tensor)
    np.testing.assert_array_equal(tensor.weight, WEIGHT.weight)
    np.testing.assert_array_equal(tensor.scales, WEIGHT.scales)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"unused": 1}, "unused"),
        ({"weight": WEIGHT.weight}, "weight"),
        ({"weight": WEIGHT.weight, "scales": None}, "scales, weight"),
        (
            {"weight": WEIGHT.weight, "scales": WEIGHT.scales, "bias": NUMBERS},
            "bias, scales, weight",
        ),
    ],
)
def test_parse_a_weight_with_other_fields_raises(
    fields: dict[str, Any], names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickled_fields(fields, monkeypatch)
    with pytest.raises(ModelError, match=rf"must hold the arrays weight and scales, got {names}"):
        parse(data, "file")


def test_parse_an_array_of_another_version_raises() -> None:
    data = file_of(NUMBERS)
    state = b"(K\x01K\x02K\x03"  # version 1, shape (2, 3)
    assert data.count(state) == 1
    with pytest.raises(ModelError, match="an array's state has version 2, expected 1"):
        parse(data.replace(state, b"(K\x02K\x02K\x03"), "file")


def test_parse_big_endian_numbers_raises() -> None:
    data = pickle.dumps(NUMBERS.astype(">f4"), protocol=4)
    with pytest.raises(ModelError, match=r"its numbers have byte order '>', expected"):
        parse(data, "file")


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.float16, np.bool_])
def test_parse_another_element_type_raises(dtype: Any) -> None:
    with pytest.raises(ModelError, match="it holds elements of type"):
        parse(pickle.dumps(NUMBERS.astype(dtype), protocol=4), "file")


def test_parse_another_object_raises() -> None:
    with pytest.raises(ModelError, match="expected one array or one QuantizedWeight8bit, got dict"):
        parse(pickle.dumps({"weight": 1}, protocol=4), "file")


def test_parse_returns_views_of_the_file() -> None:
    data = (CONFORMANCE / "mha" / "ckpt-0" / LINEAR_1).read_bytes()
    tensor = parse(data, LINEAR_1)
    assert isinstance(tensor, Int8Tensor)
    assert np.shares_memory(tensor.weight, np.frombuffer(data, np.int8))


@pytest.mark.parametrize("kept", [0, 1, 2, 12, 100, 4000, 98_000, 110_902])
def test_parse_of_a_truncated_file_raises(kept: int) -> None:
    whole = (CONFORMANCE / "gqa" / "ckpt-0" / LINEAR_1).read_bytes()
    with pytest.raises(ModelError, match=r"truncated or damaged .*; fetch the file again"):
        parse(whole[:kept], LINEAR_1)


def test_parse_of_bytes_after_the_end_raises() -> None:
    whole = (CONFORMANCE / "gqa" / "ckpt-0" / NORM).read_bytes()
    with pytest.raises(ModelError, match="7 bytes follow the end"):
        parse(whole + bytes(7), NORM)


def test_parse_of_any_flipped_byte_raises_model_errors_only() -> None:
    """Each flipped byte gives a ModelError or a tensor, never another exception."""
    whole = bytearray((CONFORMANCE / "gqa" / "ckpt-0" / NORM).read_bytes())
    refused = 0
    for position in range(len(whole)):
        for flip in (0x01, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            try:
                parse(bytes(damaged), NORM)
            except ModelError:
                refused += 1
    assert refused > 150


def parse_message(data: bytes) -> str:
    """Returns the message of the error of a file; empty if it is a tensor."""
    try:
        parse(data, "file")
    except ModelError as error:
        return str(error)
    return ""


def test_parse_of_hostile_files_raises_model_errors_within_bounds() -> None:
    """10,000 files. A file takes some 0.1 ms of the second of CPU time that it may take."""
    program = [sys.executable, "-m", "tests.actors.weights.hostile_pickles"]
    output = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    parsed = json.loads(output)
    assert parsed["tensors"] > 0
    assert len(parsed["messages"]) > 500
    for message in parsed["messages"]:
        assert len(message) < MAX_MESSAGE_CHARS
        assert message.isprintable()
    assert parsed["longest_cpu_s"] < MAX_CPU_S
    assert parsed["extra_bytes"] < MAX_EXTRA_BYTES


def test_parse_of_doubled_tuples_never_walks_them() -> None:
    """Each tuple holds the one before twice: 2^100 values for whoever compares or shows them."""
    doubled = b")" + b"".join(b"\x94h" + bytes([entry]) + b"\x86" for entry in range(100))
    for use in (b"\x8c\x01a\x93.", b")\x81.", b")R.", b"\x85R.", b"Nb.", b"K\x01s.", b"."):
        assert parse_message(b"\x80\x04" + doubled + use)


def test_parse_of_more_opcodes_than_allowed_raises() -> None:
    data = b"\x80\x04" + b"N" * 2000 + b"."
    with pytest.raises(ModelError, match="more than 1000 pickle opcodes"):
        parse(data, "file")


@pytest.mark.parametrize(
    ("opcode", "message"),
    [
        (b"X\xff\xff\xff\xff", "a string of 4294967295 bytes, expected at most 256"),
        (b"\x8e" + b"\xff" * 8, "18446744073709551615 bytes expected at position 11 of 16"),
        (b"\x8b\xff\xff\xff\x7f", "the pickle opcode LONG4"),
        (b"cos\nsystem\n", "opcodes of pickle protocol 0"),
        (b"\xfe", "the byte 0xfe in place of a pickle opcode"),
    ],
)
def test_parse_rejects_an_opcode_before_its_argument(opcode: bytes, message: str) -> None:
    data = b"\x80\x04" + opcode + b"....."
    assert message in parse_message(data)


def test_parse_quotes_names_of_a_file_escaped_and_cut() -> None:
    def string(text: str) -> bytes:
        return b"\x8c" + bytes([len(text)]) + text.encode()

    data = b"\x80\x04" + string("\x1b[31m\n") + string("x" * 200) + b"\x93."
    message = parse_message(data)
    assert r"it refers to \x1b[31m\n.xxx" in message
    assert "x" * 79 + "…" in message
    assert "x" * 80 not in message
