"""Stage `parse`: typed columns from completions, by a regular expression or as JSON.

Types: string, int64, float64, bool, and lists of these (`list[string]`); `json` keeps any JSON
value as text. A `?` after the type lets the field be absent or null. Numbers are taken as they are
written: no thousands separators, no numbers in quotes.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import Rejection, shortened
from pipeline.synthesis.selection.patterns import FieldPattern
from pipeline.synthesis.selection.samples import StageResult

MAX_STARTS = 64  # opening braces that are tried: a text of braces only must not take time
INT64 = 2**63
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False}
_SCALARS: dict[str, Any] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
TYPES = (*_SCALARS, *(f"list[{name}]" for name in _SCALARS), "json")


class _TypeMismatchError(ValueError):
    """A value is not of the type of its field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column that is parsed."""

    name: str
    type_name: str  # one of TYPES
    optional: bool = False

    @property
    def is_list(self) -> bool:
        """Whether values are lists."""
        return self.type_name.startswith("list[")

    @property
    def item_type_name(self) -> str:
        """Type of a value, or of an item of a list."""
        return self.type_name.removeprefix("list[").removesuffix("]")

    @property
    def arrow(self) -> "pa.Field[Any]":
        """The column, always nullable: rejected rows have it, too."""
        item_type: Any = _SCALARS.get(self.item_type_name, pa.string())
        if self.is_list:
            return pa.field(self.name, pa.list_(item_type))
        return pa.field(self.name, item_type)

    def from_text(self, text: str) -> object:
        """Returns a captured text as a value of the field's type.

        Raises:
            ValueError: the text does not have the type.
        """
        return _from_text(self.type_name, text)

    def from_json(self, value: object) -> object:
        """Returns a JSON value as a value of the field's type.

        Raises:
            ValueError: the value does not have the type.
        """
        if not self.is_list:
            return _from_json(self.type_name, value)
        if not isinstance(value, list):
            raise _TypeMismatchError
        return [_from_json(self.item_type_name, item) for item in value]


def read_fields(types: Mapping[str, object]) -> tuple[Field, ...]:
    """Returns the fields of --fields: name → type.

    Raises:
        ConfigError: a type is unknown.
    """
    fields = []
    for name, type_name in types.items():
        base = type_name
        if isinstance(type_name, str):
            base = type_name.removesuffix("?")
        if base not in TYPES:
            raise ConfigError(
                f"--fields: {name}: expected one of {', '.join(TYPES)}, with a ? if it may be "
                f"absent; got {quoted(type_name)}"
            )
        fields.append(Field(name, str(base), optional=type_name != base))
    return tuple(fields)


ParsedValues = Mapping[str, object] | Rejection


class FieldParser:
    """Parses the fields out of a column of completions."""

    def __init__(self, fields: Sequence[Field], pattern: FieldPattern | None) -> None:
        """Takes the fields from the groups of `pattern`, or from JSON objects without a pattern.

        Args:
            fields: types of the fields; groups without an entry are strings.
            pattern: pattern with a group per field; None: JSON.

        Raises:
            ConfigError: a field is not a group of the pattern, or has a type that text is not
                converted to; or there is no field.
        """
        self._pattern = pattern
        self.fields = tuple(fields)
        if pattern is not None:
            self.fields = _group_fields(pattern, fields)
        if not self.fields:
            raise ConfigError(
                "--parse-json: name the keys that become columns with --fields, e.g. --fields "
                "'{answer: int64}'"
            )

    def __call__(self, table: pa.Table) -> StageResult:
        """Adds the columns of the fields, null in rows without values."""
        parsed = self.parse(table["completion"])
        rows: list[Mapping[str, object]] = []
        verdicts: list[Rejection | None] = []
        for outcome in parsed:
            if isinstance(outcome, Rejection):
                rows.append({})
                verdicts.append(outcome)
            else:
                rows.append(outcome)
                verdicts.append(None)

        for field in self.fields:
            values = [row.get(field.name) for row in rows]
            table = table.append_column(field.arrow, pa.array(values, field.arrow.type))
        return StageResult(table, verdicts)

    def parse(self, texts: Any) -> list[ParsedValues]:
        """Returns the values of each text by field, or the rejection.

        Args:
            texts: an Arrow column of strings.
        """
        if self._pattern is not None:
            return list(map(self._from_groups, self._pattern.fields(texts)))
        return list(map(self._from_json, texts.to_pylist()))

    def _from_groups(self, groups: Mapping[str, str] | None) -> ParsedValues:
        if groups is None:
            return Rejection("parse", "no_match")
        values: dict[str, object] = {}
        for field in self.fields:
            text = groups[field.name]
            if text == "" and not field.optional:
                return Rejection("parse", f"missing: {field.name}")
            try:
                values[field.name] = field.from_text(text) if text else None
            except ValueError:
                return _mismatch(field, text)
        return values

    def _from_json(self, text: str | None) -> ParsedValues:
        parsed = None
        if text is not None:
            parsed = first_object(text)
        if parsed is None:
            return Rejection("parse", "no_json_object")
        values: dict[str, object] = {}
        for field in self.fields:
            value = parsed.get(field.name)
            if value is None and not field.optional:
                return Rejection("parse", f"missing: {field.name}")
            try:
                values[field.name] = None if value is None else field.from_json(value)
            except ValueError:
                return _mismatch(field, value)
        return values


def first_object(text: str) -> dict[str, Any] | None:
    """Returns the first JSON object anywhere in a text, or None."""
    start = -1
    for _ in range(MAX_STARTS):
        start = text.find("{", start + 1)
        if start < 0:
            return None
        try:
            value, _end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def _mismatch(field: Field, value: object) -> Rejection:
    reason = f"not {field.type_name}: {field.name}"
    return Rejection("parse", reason, shortened(repr(value)))


def _group_fields(pattern: FieldPattern, fields: Sequence[Field]) -> tuple[Field, ...]:
    """Returns a field for each group, in the order of the groups."""
    for field in fields:
        if field.name not in pattern.groups:
            raise ConfigError(
                f"--fields: {field.name}: --parse-regex has no such group, it has "
                f"{', '.join(pattern.groups)}"
            )
        if field.type_name not in _SCALARS:
            raise ConfigError(
                f"--fields: {field.name}: a group of --parse-regex is one of "
                f"{', '.join(_SCALARS)}, got {field.type_name}"
            )
    declared = {field.name: field for field in fields}
    return tuple(declared.get(group, Field(group, "string")) for group in pattern.groups)


def _from_text(type_name: str, text: str) -> object:
    stripped = text.strip()
    if type_name == "string":
        return text
    if type_name == "int64" and _INTEGER.fullmatch(stripped):
        return _int64(int(stripped))
    if type_name == "float64" and _REAL.fullmatch(stripped) and math.isfinite(float(stripped)):
        return float(stripped)
    if type_name == "bool" and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    raise _TypeMismatchError


def _from_json(type_name: str, value: object) -> object:
    if type_name == "json":
        return _encodable(json.dumps(value, ensure_ascii=False, sort_keys=True))
    if type_name == "string" and isinstance(value, str):
        return _encodable(value)
    if type_name == "bool" and isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if type_name == "int64" and (isinstance(value, int) or value.is_integer()):
            return _int64(int(value))
        if type_name == "float64" and abs(value) < 1e308:
            return float(value)
    raise _TypeMismatchError


def _int64(value: int) -> int:
    if not -INT64 <= value < INT64:
        raise _TypeMismatchError
    return value


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell lone surrogates, UTF-8 cannot
        raise _TypeMismatchError from error
    return text


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
