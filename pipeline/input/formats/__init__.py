"""Formats of input files: one module per format, and the registry that finds it by the file's name.

A new format is a module with an `InputFormat` (pipeline/input/formats/format.py) and an entry here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import pyarrow as pa

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.input.formats.format import Cursor, InputFormat, Rows
from pipeline.input.formats.jsonl import JSON_LINES
from pipeline.input.formats.parquet import PARQUET, open_parquet, parquet_schema
from pipeline.input.formats.python_values import python_values
from pipeline.records import InputFile

__all__ = [
    "FORMATS",
    "PARQUET_SUFFIXES",
    "SUFFIXES",
    "Cursor",
    "InputFormat",
    "Rows",
    "count_rows",
    "file_columns",
    "format_of",
    "open_cursor",
    "open_parquet",
    "parquet_schema",
    "python_values",
]

FORMATS: tuple[InputFormat, ...] = (PARQUET, JSON_LINES)
PARQUET_SUFFIXES = PARQUET.suffixes
SUFFIXES = tuple(chain.from_iterable(input_format.suffixes for input_format in FORMATS))


def format_of(url: str) -> InputFormat:
    """Returns the format of a file by the suffix of its name; files of other names are Parquet."""
    for input_format in FORMATS:
        if url.lower().endswith(input_format.suffixes):
            return input_format
    return PARQUET


def count_rows(
    url: str, limit: int | None = None, client: storage.Client = storage.DEFAULT_CLIENT
) -> int:
    """Returns the number of rows of a file; a format may stop counting at `limit`.

    Raises:
        DatasetError: the file is missing, not readable, or damaged.
    """
    return format_of(url).count_rows(url, limit, client)


def file_columns(files: Sequence[InputFile]) -> FileColumns:
    """Returns the columns that all `files` have, with their types.

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
    return input_format.file_columns(files)


@contextmanager
def open_cursor(
    url: str,
    inputs: Sequence[str],
    passthrough: pa.Schema,
    version: str = "",
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[Cursor]:
    """Opens a file for reading row ranges.

    Args:
        url: of the file.
        inputs: columns that are read as Python values.
        passthrough: columns that are read as Arrow arrays, named as in the file.
        version: that the file must have, as in `storage.open_object`; empty: any.
        client: reads the file.

    Raises:
        DatasetError: the file is missing, not readable, or damaged.
    """
    with format_of(url).open_cursor(url, inputs, passthrough, version, client) as cursor:
        yield cursor
