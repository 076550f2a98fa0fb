"""Completions → typed columns, parsed out of the text by a regular expression or as JSON, or the reason why they cannot be.

Types: string, int64, float64, bool, and lists of these (`list[string]`); `json` keeps any JSON
value as text. A `?` after the type lets the field be absent or null. Numbers are taken as they are
written: no thousands separators, no numbers in quotes.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.synthesis.selection.patterns import FieldPattern
from pipeline.synthesis.selection.rejections import Rejection, shortened

MAX_STARTS = 64  # opening braces that are tried: a text of nothing but braces must not take time
INT64 = 2**63
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False}


class _MisfitError(ValueError):
    """A value is not of the type that the field has."""


def _from_text(kind: str, text: str) -> object:
    """Returns a captured text as a value of a plain type."""
    stripped = text.strip()
    if kind == "string":
        return text
    if kind == "int64" and _INTEGER.fullmatch(stripped) and -INT64 <= int(stripped) < INT64:
        return int(stripped)
    if kind == "float64" and _REAL.fullmatch(stripped) and math.isfinite(float(stripped)):
        return float(stripped)
    if kind == "bool" and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    raise _MisfitError


def _from_json(kind: str, value: object) -> object:
    """Returns a JSON value as a value of a plain type."""
    if kind == "json":
        return _encodable(json.dumps(value, ensure_ascii=False, sort_keys=True))
    if kind == "string" and isinstance(value, str):
        return _encodable(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if (
            kind == "int64"
            and (isinstance(value, int) or value.is_integer())
            and -INT64 <= int(value) < INT64
        ):
            return int(value)
        if kind == "float64" and abs(value) < 1e308:
            return float(value)
    raise _MisfitError


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell lone surrogates, UTF-8 cannot
        raise _MisfitError from error
    return text


_PLAIN: dict[str, Any] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
TYPES = (*_PLAIN, *(f"list[{name}]" for name in _PLAIN), "json")


@dataclass(frozen=True, slots=True)
class Field:
    """A column that is parsed."""

    name: str
    kind: str  # one of TYPES
    optional: bool = False

    @property
    def arrow(self) -> "pa.Field[Any]":
        """The column, always nullable: rejected rows have it, too."""
        inner = self.kind.removeprefix("list[").removesuffix("]")
        kind: Any = _PLAIN.get(inner, pa.string())
        return pa.field(self.name, pa.list_(kind) if self.kind.startswith("list[") else kind)

    def convert(self, value: object, *, quoted: bool) -> object:
        """Returns a value of the field's type. `quoted`: it was captured as text.

        Raises:
            ValueError: it is none.
        """
        if quoted:
            return _from_text(self.kind, str(value))
        if not self.kind.startswith("list["):
            return _from_json(self.kind, value)
        if not isinstance(value, list):
            raise _MisfitError
        return [_from_json(self.kind[5:-1], item) for item in value]


def read_fields(given: Mapping[str, object]) -> tuple[Field, ...]:
    """Returns the fields of --fields: name → type.

    Raises:
        ConfigError: a type is unknown.
    """
    fields = []
    for name, kind in given.items():
        plain = kind.removesuffix("?") if isinstance(kind, str) else kind
        if plain not in TYPES:
            raise ConfigError(
                f"--fields: {name}: expected one of {', '.join(TYPES)}, with a ? if it may be "
                f"absent; got {kind!r}"
            )
        fields.append(Field(name, str(plain), optional=kind != plain))
    return tuple(fields)


Found = Mapping[str, object] | Rejection


class FieldParser:
    """Parses the fields out of a column of completions."""

    def __init__(self, fields: Sequence[Field], pattern: FieldPattern | None) -> None:
        """With `pattern`, its groups are the fields (text where `fields` does not say otherwise).

        Without, JSON objects are read.

        Raises:
            ConfigError: a field is no group of the pattern, or has a type that text is not converted to; or there is none.
        """
        self._pattern = pattern
        if pattern is None:
            self.fields: tuple[Field, ...] = tuple(fields)
        else:
            self.fields = _of_groups(pattern, fields)
        if not self.fields:
            raise ConfigError(
                "--parse-json: name the keys that become columns with --fields, e.g. --fields '{answer: int64}'"
            )

    def parse(self, texts: Any) -> list[Found]:
        """Returns the values of each text by field, or why there are none.

        `texts` is an Arrow column.
        """
        if self._pattern is not None:
            found: Iterator[Mapping[str, object] | None] = iter(self._pattern.fields(texts))
        else:
            found = (None if text is None else first_object(text) for text in texts.to_pylist())
        missing = "no_match" if self._pattern is not None else "no_json_object"
        return [
            Rejection("parse", missing) if values is None else self._typed(values)
            for values in found
        ]

    def _typed(self, values: Mapping[str, object]) -> Found:
        typed: dict[str, object] = {}
        quoted = self._pattern is not None
        for field in self.fields:
            value = values.get(field.name)
            if value is None or (quoted and value == ""):
                if not field.optional:
                    return Rejection("parse", f"missing: {field.name}")
                typed[field.name] = None
                continue
            try:
                typed[field.name] = field.convert(value, quoted=quoted)
            except ValueError:
                return Rejection("parse", f"not {field.kind}: {field.name}", shortened(repr(value)))
        return typed

    def columns(self, found: Sequence[Found]) -> list[tuple["pa.Field[Any]", "pa.Array[Any]"]]:
        """Returns the columns of the fields; null where there are no values."""
        kept = [values if not isinstance(values, Rejection) else {} for values in found]
        return [
            (field.arrow, pa.array([values.get(field.name) for values in kept], field.arrow.type))
            for field in self.fields
        ]


def _of_groups(pattern: FieldPattern, fields: Sequence[Field]) -> tuple[Field, ...]:
    declared = {field.name: field for field in fields}
    for field in fields:
        if field.name not in pattern.groups:
            raise ConfigError(
                f"--fields: {field.name}: --parse-regex has no such group, it has "
                f"{', '.join(pattern.groups)}"
            )
        if field.kind not in _PLAIN:
            raise ConfigError(
                f"--fields: {field.name}: a group of --parse-regex is one of {', '.join(_PLAIN)}, "
                f"got {field.kind}"
            )
    return tuple(declared.get(group, Field(group, "string")) for group in pattern.groups)


def first_object(text: str) -> dict[str, Any] | None:
    """Returns the first JSON object in a text, whatever stands around it; None if there is none."""
    start = -1
    for _ in range(MAX_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            return None
        try:
            found, _end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
