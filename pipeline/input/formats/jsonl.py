"""JSON lines: one JSON object per line; blank lines are not rows.

A line that is not a JSON object is a row with a fault: it fails by itself.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns, displayed_type
from pipeline.input.formats.format import BATCH_ROWS, FILES_AT_ONCE, Rows
from pipeline.input.json_types import JsonColumns, to_arrow
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials


class JsonLines:
    """The format of .jsonl files."""

    name = "JSON lines"
    suffixes = (".jsonl", ".ndjson")

    def count_rows(self, url: str, limit: int | None, client: storage.Client) -> int:
        """Counts lines, up to `limit`."""
        with client.open_object(url, sequential=True) as file:
            return sum(1 for _ in islice(_lines(file), limit))

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns of all files, with the type that all their values have."""
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            columns = reduce(JsonColumns.union, pool.map(_columns, files))
        types = {name: {data_type: files[0].url} for name, data_type in columns.types.items()}
        return FileColumns(types)

    @contextmanager
    def open_cursor(
        self,
        url: str,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        version: str,
        client: storage.Client,
    ) -> "Iterator[JsonLinesCursor]":
        """Opens the file for one pass."""
        with client.open_object(url, sequential=True, version=version) as file:
            yield JsonLinesCursor(url, file, inputs, passthrough)


class JsonLinesCursor:
    """Reads row ranges of an open JSON-lines file."""

    def __init__(
        self, url: str, file: BinaryIO, inputs: Sequence[str], passthrough: pa.Schema
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        self._url = url
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._lines = _lines(file)
        self._position = 0  # of the next row

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on; lines before it are skipped without parsing."""
        skipped = first_row - self._position
        lines = list(islice(self._lines, skipped, skipped + rows))
        end = first_row + rows
        if len(lines) < rows:
            raise DatasetError(
                f"{self._url} has fewer than the {end} rows that it had when it was listed; it "
                "changed"
            )
        self._position = end

        records: list[dict[str, Any]] = []
        faults: dict[int, str] = {}
        for row, (number, line) in enumerate(lines):
            record = _parse(line, number, self._url)
            if isinstance(record, str):
                faults[row] = record
                record = {}
            records.append(record)

        values: dict[str, list[Any]] = {}
        for name in self._inputs:
            values[name] = _values(records, name)
        return Rows(values, self._passthrough_table(records, faults), faults)

    def _passthrough_table(
        self, records: Sequence[dict[str, Any]], faults: dict[int, str]
    ) -> pa.Table:
        """Returns the passthrough columns; adds a fault for each row whose value does not fit."""
        arrays: list[pa.Array[Any]] = []
        for column in self._passthrough:
            array, misfits = to_arrow(_values(records, column.name), column)
            arrays.append(array)
            for row in misfits:
                faults[row] = (
                    f"column '{column.name}' is not {displayed_type(column.type)}, as it was when "
                    "the file was listed"
                )
        return pa.Table.from_arrays(arrays, schema=self._passthrough)


def _columns(file: InputFile) -> JsonColumns:
    """Returns the columns of the first `file.rows` rows; lines that do not parse have none."""
    columns = JsonColumns()
    with storage.open_object(file.url, sequential=True) as opened:
        lines = islice(_lines(opened), file.rows)
        while batch := list(islice(lines, BATCH_ROWS)):
            records: list[dict[str, Any]] = []
            for number, line in batch:
                record = _parse(line, number, file.url)
                if isinstance(record, dict):
                    records.append(record)
            columns = columns.with_records(records)
    return columns


def _values(records: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Returns the values of a column; None where a record does not have it."""
    return [record.get(name) for record in records]


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank, with their number in the file, counted from 1."""
    for number, line in enumerate(file, start=1):
        if not line.isspace():
            yield number, line


def _parse(line: bytes, number: int, url: str) -> dict[str, Any] | str:
    """Returns the object of a line, or what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"line {number} of {redact_credentials(url)} is not JSON: {error}"
    if isinstance(record, dict):
        return record
    found_type = type(record).__name__
    return f"line {number} of {redact_credentials(url)} is not a JSON object but {found_type}"


JSON_LINES = JsonLines()
