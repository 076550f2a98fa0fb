"""Columns of all files of an input: the types that each has, and the one in which it is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.input.common_types import common_type
from pipeline.input.json_text import json_text_field
from pipeline.output.storable import storable_types
from pipeline.storage.redaction import redact_credentials

NAMED_COLUMNS = 5  # that a notice describes
DISPLAYED_CHARS = 60  # of a type in a notice

# The type of a column and the first file that has it. The type is None where the values of JSON
# lines have none in common.
ColumnTypes = Mapping[pa.DataType | None, str]


@dataclass(frozen=True, slots=True)
class PassthroughColumns:
    """Columns in the types in which they are written."""

    fields: "tuple[pa.Field[Any], ...]"
    notices: tuple[str, ...]  # what is written otherwise than the files have it


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Columns that all files of an input have, in order."""

    types: Mapping[str, ColumnTypes]
    from_folders: tuple[str, ...] = ()  # names of those whose values the names of folders give
    notices: tuple[str, ...] = ()  # what a user should know of the columns

    def __post_init__(self) -> None:
        """Raises DatasetError for a name that is not valid Unicode, as JSON lines can have."""
        for name, column_types in self.types.items():
            try:
                name.encode()
            except UnicodeEncodeError as error:
                url = redact_credentials(next(iter(column_types.values())))
                raise DatasetError(
                    f"{url}: expected valid Unicode in names of columns, got {quoted(name)}; "
                    "rename it"
                ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of first appearance."""
        return tuple(self.types)

    def passthrough(self, names: Iterable[str]) -> PassthroughColumns:
        """Returns the fields of columns that pass through to the output.

        A column whose files differ has a type that holds the values of all of them unchanged. Where
        there is none, or Parquet cannot hold the type, values are kept as JSON text: no value is
        lost or converted by a guess.
        """
        common_types: dict[str, pa.DataType | None] = {}
        for name in names:
            common_types[name] = reduce(_common, self.types[name])
        present = [data_type for data_type in common_types.values() if data_type is not None]
        storable = storable_types(present)

        fields: list[pa.Field[Any]] = []
        as_text: list[str] = []
        for name, data_type in common_types.items():
            stored = storable.get(data_type) if data_type is not None else None
            if stored is None:
                fields.append(json_text_field(name))
                as_text.append(name)
            else:
                fields.append(pa.field(name, stored))
        return PassthroughColumns(tuple(fields), tuple(self._notices(as_text)))

    def _notices(self, as_text: Sequence[str]) -> Iterable[str]:
        if not as_text:
            return
        descriptions = [self._description(name) for name in as_text[:NAMED_COLUMNS]]
        if len(as_text) > NAMED_COLUMNS:
            descriptions.append(f"{len(as_text) - NAMED_COLUMNS} more")
        yield (
            f"columns that pass through as JSON text: {'; '.join(descriptions)}. Convert them in "
            "the input to keep a type"
        )

    def _description(self, name: str) -> str:
        """Returns why a column has no type of its own."""
        types = self.types[name]
        if None in types:
            return f"{quoted(name)} has values of several types, or very many keys"
        locations: list[str] = []
        for data_type, url in types.items():
            locations.append(f"{displayed_type(data_type)} in {redact_credentials(url)}")
        if len(locations) == 1:
            return (
                f"{quoted(name)} is {displayed_type(next(iter(types)))}, which Parquet cannot hold"
            )
        return f"{quoted(name)} is {' and '.join(locations[:2])}"


def displayed_type(data_type: pa.DataType | None) -> str:
    """Returns the name of a type, cut after some characters."""
    name = str(data_type)
    if len(name) <= DISPLAYED_CHARS:
        return name
    return name[:DISPLAYED_CHARS] + "…"


def _common(first: pa.DataType | None, second: pa.DataType | None) -> pa.DataType | None:
    if first is None or second is None:
        return None
    return common_type(first, second)
