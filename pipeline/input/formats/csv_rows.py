"""CSV and TSV files with a header: RFC 4180, UTF-8. Values may have line breaks in quotes.

CSV has no types: columns are strings, and empty values are null. Sampling parameters, token ids and
choices are read as JSON.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actors.protocol.plain_text import bare, is_unicode
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input.formats.record_format import RecordFormat
from pipeline.input.limits import MAX_LINE_BYTES, MAX_VALUE_BYTES
from pipeline.input.roles import CONTINUATION, PROMPT

BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class CsvRow:
    """Values of a row, in the order of the header."""

    line: int  # on which the row ends, counted from 1
    names: Sequence[str]
    values: Sequence[str]


class CsvSyntax:
    """Rows after a header, with values between delimiters."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter

    def records(self, stream: io.BufferedReader, url: str) -> Iterator[CsvRow]:
        """Yields the rows below the header; blank lines are not rows.

        Raises:
            DatasetError: no header, two columns of one name, or a quote that is never closed.
        """
        # A setting of the process; this module alone uses it.
        csv.field_size_limit(MAX_VALUE_BYTES)  # its own limit is 128 KiB
        reader = csv.reader(_text_lines(stream), delimiter=self._delimiter, strict=True)
        names: list[str] = []
        try:
            for values in reader:
                if not values:
                    continue
                if names:
                    yield CsvRow(reader.line_num, names, values)
                else:
                    _check_header(values, url)
                    names = values
        except csv.Error as error:
            raise DatasetError(
                f"{bare(url)} is not readable CSV at line {reader.line_num}: "
                f"{error}; write it again or leave it out"
            ) from error

    def parse(self, record: CsvRow, url: str) -> dict[str, Any] | str:
        """Returns the values by column."""
        location = f"line {record.line} of {bare(url)}"
        if len(record.values) != len(record.names):
            expected = len(record.names)
            return f"{location} has {len(record.values)} values, expected {expected}"
        row: dict[str, Any] = {}
        for name, value in zip(record.names, record.values, strict=True):
            if not is_unicode(value):
                return f"{location}: column '{name}' is not valid UTF-8"
            row[name] = _typed(name, value)
        return row

    def size(self, record: CsvRow) -> int:
        """Returns the characters of a row."""
        return sum(map(len, record.values))


def _text_lines(stream: io.BufferedReader) -> Iterator[str]:
    """Yields lines with their ends; bytes that are not UTF-8 become lone surrogates."""
    is_first = True
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise csv.Error(f"a line has more than the {MAX_LINE_BYTES:,} bytes that one may have")
        text = line.decode(errors="surrogateescape")
        if is_first:
            text = text.removeprefix(BYTE_ORDER_MARK)
            is_first = False
        yield text


CSV = RecordFormat("CSV", (".csv",), CsvSyntax(","))
TSV = RecordFormat("TSV", (".tsv", ".tab"), CsvSyntax("\t"))


def _json_columns() -> frozenset[str]:
    """Returns the names of columns whose values are never one text."""
    names = set()
    for name, parameter in PARAMETERS.items():
        if parameter.kind.column != "texts":
            names.add(name)
    for role in (PROMPT, CONTINUATION):
        for form in role.forms:
            if form.is_list or not form.is_text:
                names.add(form.name)
    return frozenset(names)


JSON_COLUMNS = _json_columns()


def _check_header(names: Sequence[str], url: str) -> None:
    for position, name in enumerate(names, start=1):
        if not is_unicode(name):
            raise DatasetError(
                f"{bare(url)}: the name of column {position} is not valid UTF-8; "
                "convert the file to UTF-8"
            )
    for name, count in Counter(names).items():
        if count > 1:
            raise DatasetError(
                f"{bare(url)} has more than one column '{name}'; rename or drop one of them"
            )


def _typed(name: str, value: str) -> Any:
    """Returns a value: None where it is empty, and of a column of JSON what it stands for.

    Text that is not JSON stays text: the check of the row reports it.
    """
    if not value:
        return None
    is_text_list = name in PARAMETERS and value.startswith("[")  # of `stop`, for example
    if name not in JSON_COLUMNS and not is_text_list:
        return value
    lower = value.strip().lower()
    if lower in ("true", "false"):  # also as Python and spreadsheets write them
        return lower == "true"
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
