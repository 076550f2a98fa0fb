"""The interface of an input format."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from pipeline import storage
from pipeline.input.file_columns import FileColumns
from pipeline.records import InputFile

BATCH_ROWS = 4096  # decoded at once, at most
BATCH_BYTES = 64 * 2**20  # decoded at once, about


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be opened, with what its listing says about it."""

    url: str
    version: str = ""  # that it must have; empty: any
    size: int | None = None  # in bytes, of that version; saves a request where it is given


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What one pass over a file, or its footer, says about it."""

    rows: int
    columns: Any  # with their types, in the form that `common_schema` of the format unites


@dataclass(frozen=True, slots=True)
class Rows:
    """A row range of a file."""

    values: dict[str, list[Any]]  # the columns that the run itself reads, as Python values
    passthrough: pa.Table
    # position within the range → why that row cannot be used
    faults: dict[int, str] = field(default_factory=dict)


def open_source(
    source: SourceFile, client: storage.Client, *, sequential: bool = False
) -> AbstractContextManager[BinaryIO]:
    """Opens a file for reading; `sequential` as in `storage.open_object`."""
    return client.open_object(
        source.url, sequential=sequential, version=source.version, size=source.size
    )


class Cursor(Protocol):
    """Reads row ranges of one file in ascending order.

    It never goes back: whatever the number of shards, each part of the file is decoded at most
    once, and no more than one range and one batch is in memory.
    """

    def take(self, first_row: int, rows: int) -> Rows:
        """Returns `rows` rows from `first_row` on.

        Args:
            first_row: not before the end of the last range taken.
            rows: at least one.

        Raises:
            DatasetError: the file has fewer rows, or is damaged.
        """
        ...


class InputFormat(Protocol):
    """How files of one format are read. Implementations are stateless."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of file names, in lower case."""
        ...

    @property
    def is_compressible(self) -> bool:
        """Whether files may be compressed as a whole, with one more suffix such as `.gz`."""
        ...

    def inspect(self, source: SourceFile, limit: int | None, client: storage.Client) -> FileSummary:
        """Returns the rows and columns of a file; counting may stop at `limit` rows.

        Raises:
            DatasetError: the file is missing, not readable, or damaged.
        """
        ...

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns of `files`, all of this format and with `columns`.

        Raises:
            DatasetError: a column is not in all files.
        """
        ...

    def open_cursor(
        self,
        source: SourceFile,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        client: storage.Client,
    ) -> AbstractContextManager[Cursor]:
        """Opens a file for reading row ranges; see `pipeline.input.formats.open_cursor`."""
        ...
