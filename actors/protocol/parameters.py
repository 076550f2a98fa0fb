"""Kinds of sampling parameters: which values they take from a flag, a job file or a row's column."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

# the types that a row's column of a parameter may have; pipeline/input/columns.py checks them
ColumnType = Literal["integer", "number", "boolean", "texts"]


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


class ParameterKind(ABC):
    """Base of the kinds: reads values of one type and range."""

    column: ClassVar[ColumnType]

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
    expected = "a string or a list of strings, none of them empty"

    def read(self, value: object) -> tuple[str, ...]:
        """Returns the strings as a tuple."""
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            raise ValueError(value)
        for text in texts:
            if not isinstance(text, str) or not text:
                raise ValueError(value)
        return tuple(texts)


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
            reason = f"expected {self.kind.expected}, got {value!r}"
            raise ParameterError(self.name, reason) from error
