"""Kinds of sampling parameters: the values of a flag, a job file or a row's column."""

import json
import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from actors.protocol.plain_text import quoted

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
# Strings of one parameter. Every generated token is compared with all of them.
MAX_TEXTS = 256
MAX_TEXTS_CHARS = 65_536

# the types that a row's column of a parameter may have; pipeline/input/columns.py checks them
ColumnType = Literal["integer", "number", "boolean", "texts", "token ids", "token bias"]


class ParameterError(ValueError):
    """A value is not one that its parameter takes.

    Args:
        name: of the parameter.
        reason: what was expected and what was found.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    @property
    def flag_message(self) -> str:
        """The message for a value that a flag or a job file set."""
        return f"--{self.name.replace('_', '-')}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The model's tokens, for values that are token ids or text."""

    size: int
    # ids of a text in the middle of another one; None: the run has no tokenizer
    encode: Callable[[str], Sequence[int]] | None = None

    def check(self, tokens: Iterable[int]) -> None:
        """Raises ValueError for an id outside the vocabulary."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise ValueError(f"expected token ids below {self.size}, got {token}")

    def tokens_of(self, text: str) -> tuple[int, ...]:
        """Returns the ids of a text.

        Raises:
            ValueError: there is no tokenizer, or the text has no token.
        """
        if self.encode is None:
            raise ValueError(
                f"{quoted(text)} is text and the run has no tokenizer; give --tokenizer"
            )
        tokens = tuple(self.encode(text))
        if not tokens:
            raise ValueError(f"expected text of at least one token, got {quoted(text)}")
        self.check(tokens)
        return tokens


class ParameterKind(ABC):
    """Base of the kinds: reads values of one type and range."""

    column: ClassVar[ColumnType]
    # a flag may be given several times and adds items; a job file has a list or a map
    has_items: ClassVar[bool] = False

    @property
    @abstractmethod
    def expected(self) -> str:
        """What the values are, for messages and documentation: "an integer from 0 to 1024"."""

    @abstractmethod
    def read(self, value: object) -> Any:
        """Returns the value in the one form that the rest of the program uses.

        Raises:
            ValueError: it is of another type, or out of range.
        """

    def hint(self, value: object) -> str:
        """Returns what was probably meant by a value that `read` refuses; empty if unknown."""
        return ""

    def resolve(self, value: Any, vocabulary: Vocabulary) -> Any:
        """Returns a value that was read with text replaced by token ids.

        Raises:
            ValueError: an id is outside the vocabulary, or a text has no fitting tokens.
        """
        return value


@dataclass(frozen=True, slots=True)
class Integer(ParameterKind):
    """An integer from `low` to `high`."""

    column = "integer"
    low: int
    high: int = INT32_MAX

    @property
    def expected(self) -> str:
        """The range in words."""
        if self.low < -INT32_MAX:
            return "a 64-bit integer"
        if self.high >= INT32_MAX:
            return f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"

    def read(self, value: object) -> int:
        """Returns the integer; a float without a fraction is one."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of integers with nulls is often stored as double
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(value)
        if not self.low <= value <= self.high:
            raise ValueError(value)
        return value

    def hint(self, value: object) -> str:
        """Returns which value is off, for -1, by which other tools mean it."""
        if value == -1 and self.low == 0:
            return "; 0 is off"
        if isinstance(value, int) and value > self.high and str(self.high) not in self.expected:
            return f"; the largest value is {self.high}"
        return ""


@dataclass(frozen=True, slots=True)
class Number(ParameterKind):
    """A finite number from `low` to `high`."""

    column = "number"
    low: float
    high: float
    low_excluded: bool = False

    @property
    def expected(self) -> str:
        """The range in words."""
        if self.low_excluded:
            return f"a number above {self.low:g} and up to {self.high:g}"
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, value: object) -> float:
        """Returns the number as a float."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(value)
        # NaN is in no range
        if not self.low <= value <= self.high:
            raise ValueError(value)
        if self.low_excluded and value == self.low:
            raise ValueError(value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Boolean(ParameterKind):
    """True or false."""

    column = "boolean"
    expected = "true or false"

    def read(self, value: object) -> bool:
        """Returns the boolean; 0 and 1 are none."""
        if not isinstance(value, bool):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Texts(ParameterKind):
    """Strings, none of them empty; a single one may stand alone."""

    column = "texts"
    expected = (
        f"a string or a list of at most {MAX_TEXTS} strings, none of them empty, of "
        f"{MAX_TEXTS_CHARS:,} characters in all"
    )

    def read(self, value: object) -> tuple[str, ...]:
        """Returns the strings as a tuple."""
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            raise ValueError(value)
        for text in texts:
            if not isinstance(text, str) or not text:
                raise ValueError(value)
        if len(texts) > MAX_TEXTS or sum(map(len, texts)) > MAX_TEXTS_CHARS:
            raise ValueError(value)
        return tuple(texts)


@dataclass(frozen=True, slots=True)
class Words(Texts):
    """Strings of which the engine needs the tokens, at the beginning of a text and within it."""

    def resolve(self, value: tuple[str, ...], vocabulary: Vocabulary) -> tuple[Any, ...]:
        """Returns the token sequences of each word, with and without a space before it."""
        sequences: dict[tuple[int, ...], None] = {}
        for word in value:
            bare_word = word.lstrip()
            for text in (bare_word, f" {bare_word}"):
                sequences[vocabulary.tokens_of(text)] = None
        return tuple(sequences)


@dataclass(frozen=True, slots=True)
class TokenIds(ParameterKind):
    """Token ids; on the command line separated by commas."""

    column = "token ids"
    has_items = True
    expected = "a list of token ids"

    def read(self, value: object) -> tuple[int, ...]:
        """Returns the ids, each once."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = (value,)
        if isinstance(value, str):
            value = [int(part) for part in value.strip("[] ").split(",") if part.strip()]
        if not isinstance(value, list | tuple | array):
            raise ValueError(value)
        tokens: dict[int, None] = {}
        for token in value:
            tokens[Integer(0, INT64_MAX).read(token)] = None
        return tuple(tokens)

    def resolve(self, value: tuple[int, ...], vocabulary: Vocabulary) -> tuple[int, ...]:
        """Returns the ids; they are in the vocabulary."""
        vocabulary.check(value)
        return value


@dataclass(frozen=True, slots=True)
class TokenBias(ParameterKind):
    """A number for each of some tokens, which are given by id or by text of exactly one token.

    A map, a list of pairs, or JSON text of either. A key of decimal digits is an id.
    """

    column = "token bias"
    has_items = True
    low: float
    high: float
    expected = "a map from token ids or text to numbers"

    def read(self, value: object) -> tuple[tuple[int | str, float], ...]:
        """Returns (token, bias) pairs in order of tokens; biases are cut to the range."""
        if isinstance(value, str):
            value = json.loads(value)
        if isinstance(value, Mapping):
            value = list(value.items())
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        biases: dict[int | str, float] = {}
        for entry in value:
            pair = entry
            if isinstance(entry, Mapping):  # a struct of Parquet, whatever the names of its fields
                pair = list(entry.values())
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ValueError(value)
            token, bias = pair
            if bias is not None:  # a struct of Parquet has all tokens of all rows
                biases[self._token(token)] = self._bias(bias)
        return tuple(sorted(biases.items(), key=_token_order))

    def _token(self, token: object) -> int | str:
        if isinstance(token, str) and token.isdecimal():
            return int(token)
        if isinstance(token, str) and token:
            return token
        return Integer(0).read(token)

    def _bias(self, bias: object) -> float:
        if isinstance(bias, bool) or not isinstance(bias, int | float) or math.isnan(bias):
            raise ValueError(bias)
        return float(min(self.high, max(self.low, bias)))

    def resolve(
        self, value: tuple[tuple[int | str, float], ...], vocabulary: Vocabulary
    ) -> tuple[tuple[int, float], ...]:
        """Returns (token id, bias) pairs."""
        biases: dict[int, float] = {}
        for key, bias in value:
            token = key if isinstance(key, int) else _single_token(key, vocabulary)
            if token in biases:
                raise ValueError(f"expected each token once, got token {token} twice")
            biases[token] = bias
        vocabulary.check(biases)
        return tuple(biases.items())


def _token_order(item: tuple[int | str, float]) -> tuple[bool, str | int]:
    token, _ = item
    return isinstance(token, str), token


def _single_token(text: str, vocabulary: Vocabulary) -> int:
    tokens = vocabulary.tokens_of(text)
    if len(tokens) != 1:
        raise ValueError(
            f"expected token ids or text of one token, got {quoted(text)} of {len(tokens)}"
        )
    return tokens[0]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One sampling parameter as it is declared."""

    name: str
    default: Any
    kind: ParameterKind
    help: str
    # "always": part of every fingerprint, as in the first version. "if set": part only where it
    # differs from the default, so that runs begun before the parameter existed resume.
    fingerprint: Literal["always", "if set"]

    @property
    def flag(self) -> str:
        """The name of the flag."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, value: object) -> Any:
        """Returns a value of the parameter in the form that the rest of the program uses.

        Raises:
            ParameterError: the parameter does not take this value.
        """
        try:
            return self.kind.read(value)
        except ValueError as error:
            reason = f"expected {self.kind.expected}, got {quoted(value)}{self.kind.hint(value)}"
            raise ParameterError(self.name, reason) from error

    def resolve(self, value: Any, vocabulary: Vocabulary) -> Any:
        """Returns a value that was read as the engine uses it: text as token ids.

        Raises:
            ParameterError: the vocabulary does not fit.
        """
        try:
            return self.kind.resolve(value, vocabulary)
        except ValueError as error:
            raise ParameterError(self.name, str(error)) from error
