import math
from array import array

import pytest

from actors.protocol.parameters import (
    Boolean,
    Integer,
    Number,
    ParameterError,
    ParameterKind,
    Texts,
    TokenBias,
    TokenIds,
    Vocabulary,
)
from actors.protocol.sampling import PARAMETERS

BIASES = ((5, -9.0), (6, 1.0))


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
        (TokenIds(), [5, 6, 5], (5, 6)),
        (TokenIds(), array("i", [7]), (7,)),
        (TokenIds(), "5, 6", (5, 6)),
        (TokenIds(), "[5, 6]", (5, 6)),
        (TokenIds(), 5, (5,)),
        (TokenIds(), [5.0, 6], (5, 6)),
        (TokenIds(), [], ()),
        (TokenBias(-9, 9), [{"token": 6, "bias": 1}, {"token": 5.0, "bias": -10}], BIASES),
        (TokenBias(-9, 9), [[5.0, 1]], ((5, 1.0),)),
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
        (TokenIds(), [-1]),
        (TokenIds(), [1.5]),
        (Texts(), ["a"] * 257),
        (Texts(), "a" * 65_537),
        (TokenIds(), [True]),
        (TokenIds(), ["a"]),
        (TokenIds(), "a"),
        (TokenIds(), None),
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


def test_token_ids_are_in_the_vocabulary() -> None:
    assert TokenIds().resolve((0, 7), Vocabulary(8)) == (0, 7)
    with pytest.raises(ValueError, match="expected token ids below 8, got 8"):
        TokenIds().resolve((0, 8), Vocabulary(8))


def test_vocabulary_needs_a_tokenizer_for_text() -> None:
    assert Vocabulary(8, lambda text: [len(text)]).tokens_of("abc") == (3,)
    with pytest.raises(ValueError, match="'a' is text and the run has no tokenizer"):
        Vocabulary(8).tokens_of("a")
    with pytest.raises(ValueError, match="expected text of at least one token, got 'a'"):
        Vocabulary(8, lambda text: []).tokens_of("a")
    with pytest.raises(ValueError, match="expected token ids below 8, got 9"):
        Vocabulary(8, lambda text: [9]).tokens_of("a")


def test_refused_integer_beyond_the_range_has_the_largest_value() -> None:
    with pytest.raises(ParameterError, match=r"; the largest value is 2147483647$"):
        PARAMETERS["max_tokens"].read(2**31)
    with pytest.raises(ParameterError, match=r"from 1 to 4096, got 4097$"):
        PARAMETERS["n"].read(4097)


def test_refused_minus_one_has_the_value_that_is_off() -> None:
    with pytest.raises(ParameterError, match=r"at least 0, got -1; 0 is off"):
        PARAMETERS["top_k"].read(-1)
    with pytest.raises(ParameterError, match=r"at least 0, got -2$"):
        PARAMETERS["top_k"].read(-2)
    with pytest.raises(ParameterError, match=r"got -1$"):
        PARAMETERS["n"].read(-1)
