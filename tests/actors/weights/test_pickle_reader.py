"""Pickles that differ from xAI's in one respect: read correctly, or refused by name."""

import pickle
import sys
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
