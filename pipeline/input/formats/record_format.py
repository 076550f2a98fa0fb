"""Files of records: text in which each row has its own columns, such as JSON lines and CSV.

The types of columns are those of the values of all rows. A record that cannot be read is a row with
a fault: it fails by itself.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns, displayed_type
from pipeline.input.formats.compression import decompressed
from pipeline.input.formats.format import (
    BATCH_BYTES,
    BATCH_ROWS,
    FileSummary,
    Rows,
    SourceFile,
    open_source,
)
from pipeline.input.json_types import JsonColumns, to_arrow
from pipeline.input.limits import KEPT_VALUE_BYTES, RangeLimits
from pipeline.records import InputFile

# First bytes of files that are not text, or text that is not UTF-8.
SIGNATURES = {
    b"\xff\xfe": "UTF-16 text, convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text, convert it to UTF-8",
    b"\x1f\x8b": "compressed by gzip, name it .gz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, name it .zst",
    b"BZh": "compressed by bzip2, name it .bz2",
    b"\xfd7zXZ": "compressed by xz, name it .xz",
    b"PK\x03\x04": "a ZIP archive, unpack it",
    b"PAR1": "a Parquet file, name it .parquet",
    b"ARROW1": "an Arrow file, name it .arrow",
}


class RecordSyntax(Protocol):
    """How the records of a file are told apart and parsed."""

    def records(self, stream: io.BufferedReader, url: str) -> Iterator[Any]:
        """Yields the records, not parsed yet.

        Raises:
            DatasetError: the file as a whole cannot be read.
        """
        ...

    def parse(self, record: Any, url: str) -> dict[str, Any] | str:
        """Returns the values of a record by column, or what is wrong with it."""
        ...

    def size(self, record: Any) -> int:
        """Returns the bytes or characters of a record."""
        ...


@dataclass(frozen=True)
class RecordFormat:
    """A format of records."""

    name: str
    suffixes: tuple[str, ...]
    syntax: RecordSyntax
    is_compressible: bool = True

    def inspect(self, source: SourceFile, limit: int | None, client: storage.Client) -> FileSummary:
        """Reads the first `limit` records; those that do not parse have no columns."""
        columns = JsonColumns()
        rows = 0
        with self._open(source, client) as records:
            batch: list[dict[str, Any]] = []
            batch_bytes = 0
            for record in islice(records, limit):
                rows += 1
                values = self.syntax.parse(record, source.url)
                if isinstance(values, dict):
                    batch.append(values)
                    batch_bytes += self.syntax.size(record)
                if len(batch) >= BATCH_ROWS or batch_bytes > BATCH_BYTES:
                    columns = columns.with_records(batch)
                    batch = []
                    batch_bytes = 0
        return FileSummary(rows, columns.with_records(batch))

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns of all files, with the type that all their values have."""
        columns = reduce(JsonColumns.union, [file.columns for file in files])
        if not columns.types:
            self._check_first_record(files[0])
        types = {name: {data_type: files[0].url} for name, data_type in columns.types.items()}
        return FileColumns(types)

    @contextmanager
    def open_cursor(
        self,
        source: SourceFile,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        client: storage.Client,
    ) -> "Iterator[RecordCursor]":
        """Opens the file for one pass."""
        with self._open(source, client) as records:
            yield RecordCursor(self.syntax, source.url, records, inputs, passthrough)

    def _check_first_record(self, file: InputFile) -> None:
        """Raises DatasetError if the first record of a file cannot be read."""
        with self._open(SourceFile(file.url), storage.DEFAULT_CLIENT) as records:
            for record in islice(records, 1):
                fault = self.syntax.parse(record, file.url)
                if isinstance(fault, str):
                    raise DatasetError(
                        f"no row of the input can be read: {fault}; it is not {self.name} in UTF-8"
                    )

    @contextmanager
    def _open(self, source: SourceFile, client: storage.Client) -> Iterator[Iterator[Any]]:
        with (
            open_source(source, client, sequential=True) as file,
            decompressed(file, source.url) as stream,
        ):
            _check_text(stream, source.url)
            yield self.syntax.records(stream, source.url)


class RecordCursor:
    """Reads row ranges of an open file of records."""

    def __init__(
        self,
        syntax: RecordSyntax,
        url: str,
        records: Iterator[Any],
        inputs: Sequence[str],
        passthrough: pa.Schema,
    ) -> None:
        """`inputs` and `passthrough` as in `pipeline.input.formats.open_cursor`."""
        self._syntax = syntax
        self._url = url
        self._records = records
        self._inputs = tuple(inputs)
        self._passthrough = passthrough
        self._names = tuple(dict.fromkeys([*inputs, *passthrough.names]))
        self._position = 0  # of the next row

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on; rows before it are skipped without parsing."""
        skipped = first_row - self._position
        records = islice(self._records, skipped, skipped + rows)
        end = first_row + rows
        self._position = end

        limits = RangeLimits()
        parsed: list[dict[str, Any]] = []
        faults: dict[int, str] = {}
        for row, record in enumerate(records):
            values = self._syntax.parse(record, self._url)
            if isinstance(values, str):
                faults[row] = values
                values = {}
            values = {name: values[name] for name in self._names if name in values}
            fault = self._limit_fault(record, limits)
            if fault is not None:
                faults.setdefault(row, fault)
                values = {name: value for name, value in values.items() if _is_short(value)}
            parsed.append(values)
        if len(parsed) < rows:
            raise DatasetError(
                f"{bare(self._url)} has fewer than the {end} rows that it had when "
                "it was listed; it changed"
            )

        inputs: dict[str, list[Any]] = {}
        for name in self._inputs:
            inputs[name] = _column(parsed, name)
        return Rows(inputs, self._passthrough_table(parsed, faults), faults)

    def _limit_fault(self, record: Any, limits: RangeLimits) -> str | None:
        """Returns why a record is beyond the limits; one of which few values are kept never is."""
        if not len(self._passthrough):
            return None
        size = {"record": np.array([self._syntax.size(record)], np.int64)}
        return limits.check(size, 1).get(0)

    def _passthrough_table(
        self, records: Sequence[dict[str, Any]], faults: dict[int, str]
    ) -> pa.Table:
        """Returns the passthrough columns; adds a fault for each row whose value does not fit."""
        arrays: list[pa.Array[Any]] = []
        for column in self._passthrough:
            array, misfits = to_arrow(_column(records, column.name), column)
            arrays.append(array)
            for row in misfits:
                faults[row] = (
                    f"column '{column.name}' is not {displayed_type(column.type)}, as it was when "
                    "the file was listed"
                )
        return pa.Table.from_arrays(arrays, schema=self._passthrough)


def _column(records: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Returns the values of a column; None where a record does not have it."""
    return [record.get(name) for record in records]


def _is_short(value: Any) -> bool:
    """Whether a value is kept in a row that is beyond the limits."""
    if isinstance(value, str):
        return len(value) <= KEPT_VALUE_BYTES
    return isinstance(value, bool | int | float)


def _check_text(stream: io.BufferedReader, url: str) -> None:
    """Rejects files whose first bytes show that they are not UTF-8 text."""
    head = stream.peek(16)
    for signature, content in SIGNATURES.items():
        if head.startswith(signature):
            raise DatasetError(f"{bare(url)} is {content}, or leave it out")
    if b"\0" in head[:4]:
        raise DatasetError(
            f"{bare(url)} has zero bytes at its beginning, expected UTF-8 text; "
            "convert it or leave it out"
        )
