"""Formats of input files: one module per format, and the registry that finds it by the file's name.

A new format is a module with an `InputFormat` (pipeline/input/formats/format.py) and an entry here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.input.formats.arrow_ipc import ARROW_IPC
from pipeline.input.formats.compression import without_compression
from pipeline.input.formats.csv_rows import CSV, TSV
from pipeline.input.formats.folder_columns import FolderColumnsCursor
from pipeline.input.formats.format import Cursor, FileSummary, InputFormat, Rows, SourceFile
from pipeline.input.formats.jsonl import JSON_LINES
from pipeline.input.formats.parquet import PARQUET, open_parquet, parquet_schema
from pipeline.input.formats.python_values import python_values
from pipeline.input.partitions import with_folder_columns
from pipeline.input.read_ahead import read_ahead
from pipeline.records import InputFile, Partition
from pipeline.storage.urls import path_of

__all__ = [
    "FORMATS",
    "PARQUET_SUFFIXES",
    "SUFFIXES",
    "Cursor",
    "FileSummary",
    "InputFormat",
    "Rows",
    "SourceFile",
    "count_rows",
    "file_columns",
    "format_of",
    "has_known_suffix",
    "inspect",
    "open_cursor",
    "open_parquet",
    "parquet_schema",
    "python_values",
]

FORMATS: tuple[InputFormat, ...] = (PARQUET, JSON_LINES, CSV, TSV, ARROW_IPC)
PARQUET_SUFFIXES = PARQUET.suffixes


def _suffixes() -> Iterator[tuple[str, InputFormat]]:
    for input_format in FORMATS:
        for suffix in input_format.suffixes:
            yield suffix, input_format


SUFFIXES = dict(_suffixes())


def format_of(url: str) -> InputFormat:
    """Returns the format of a file by the suffix of its name; files of other names are Parquet."""
    return _format_by_suffix(url) or PARQUET


def has_known_suffix(url: str) -> bool:
    """Whether the name of a file says which format it has."""
    return _format_by_suffix(url) is not None


def _format_by_suffix(url: str) -> InputFormat | None:
    path = path_of(url).lower()
    for suffix, input_format in SUFFIXES.items():
        if path.endswith(suffix):
            return input_format
    path = without_compression(url)
    for suffix, input_format in SUFFIXES.items():
        if path.endswith(suffix) and input_format.is_compressible:
            return input_format
    return None


def inspect(
    source: SourceFile, limit: int | None = None, client: storage.Client = storage.DEFAULT_CLIENT
) -> FileSummary:
    """Returns the rows and columns of a file; a format may stop counting at `limit`.

    Raises:
        DatasetError: the file is missing, not readable, or damaged.
    """
    return format_of(source.url).inspect(source, limit, client)


def count_rows(url: str, client: storage.Client = storage.DEFAULT_CLIENT) -> int:
    """Returns the number of rows of a file.

    Raises:
        DatasetError: the file is missing, not readable, or damaged.
    """
    return inspect(SourceFile(url), client=client).rows


def file_columns(files: Sequence[InputFile]) -> FileColumns:
    """Returns the columns that all `files` have, with their types, and those of their folders.

    Raises:
        DatasetError: a column is not in all files, or the files are of several formats.
    """
    first = files[0]
    input_format = format_of(first.url)
    for file in files:
        file_format = format_of(file.url)
        if file_format is not input_format:
            raise DatasetError(
                f"the input mixes {input_format.name} and {file_format.name} ({first.url}, "
                f"{file.url}); run them separately"
            )
    inspected = list(read_ahead(_with_columns, files))
    return with_folder_columns(input_format.file_columns(inspected), files)


def _with_columns(file: InputFile) -> InputFile:
    """Returns a file with its columns, which listings have read already."""
    if file.columns is not None:
        return file
    source = SourceFile(file.url, file.version, file.size)
    return replace(file, columns=inspect(source, limit=file.rows).columns)


@contextmanager
def open_cursor(
    source: SourceFile,
    inputs: Sequence[str],
    passthrough: pa.Schema,
    *,
    partition: Partition = (),
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[Cursor]:
    """Opens a file for reading row ranges.

    Args:
        source: the file.
        inputs: columns that are read as Python values.
        passthrough: columns that are read as Arrow arrays, named as in the file.
        partition: columns of the two that the folders of the file have, with their values.
        client: reads the file.

    Raises:
        DatasetError: the file is missing, not readable, or damaged.
    """
    folder_values = dict(partition)
    file_inputs = [name for name in inputs if name not in folder_values]
    file_fields = [field for field in passthrough if field.name not in folder_values]
    input_format = format_of(source.url)
    with input_format.open_cursor(source, file_inputs, pa.schema(file_fields), client) as cursor:
        if not folder_values:
            yield cursor
        else:
            yield FolderColumnsCursor(cursor, inputs, passthrough, folder_values)
