import math

import pytest

from actors.protocol.parameters import Boolean, Integer, Number, ParameterKind, Texts


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Integer(1), 1, 1),
        (Integer(1), 5.0, 5),
        (Integer(0, 4), 4, 4),
        (Number(0, 1), 0, 0.0),
        (Number(0, 1), 1, 1.0),
        (Number(0, 1, low_excluded=True), 0.001, 0.001),
        (Boolean(), False, False),
        (Texts(), "a", ("a",)),
        (Texts(), ["a", "b"], ("a", "b")),
        (Texts(), (), ()),
    ],
)
def test_kind_reads_values_in_one_form(
    kind: ParameterKind, value: object, expected: object
) -> None:
    read = kind.read(value)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Integer(1), 0),
        (Integer(1), 2**31),
        (Integer(0, 4), 5),
        (Integer(0), 1.5),
        (Integer(0), True),
        (Integer(0), "1"),
        (Integer(0), math.nan),
        (Number(0, 1), -0.1),
        (Number(0, 1), 1.1),
        (Number(0, 1), math.nan),
        (Number(0, 1), True),
        (Number(0, 1), "0.5"),
        (Number(0, 1, low_excluded=True), 0.0),
        (Boolean(), 1),
        (Boolean(), "true"),
        (Texts(), ""),
        (Texts(), ["a", ""]),
        (Texts(), ["a", 1]),
        (Texts(), {"a": 1}),
    ],
)
def test_kind_refuses_other_values(kind: ParameterKind, value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the caller words the message
        kind.read(value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Integer(1), "an integer of at least 1"),
        (Integer(0, 4), "an integer from 0 to 4"),
        (Integer(-(2**63), 2**63 - 1), "a 64-bit integer"),
        (Number(0.01, 100), "a number from 0.01 to 100"),
        (Number(0, 1, low_excluded=True), "a number above 0 and up to 1"),
    ],
)
def test_range_is_described(kind: ParameterKind, words: str) -> None:
    assert kind.expected == words
