"""The interface of an input format."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipeline import storage
from pipeline.input.file_columns import FileColumns
from pipeline.records import InputFile

BATCH_ROWS = 4096  # decoded at once
FILES_AT_ONCE = 16  # whose schema is read at the same time


@dataclass(frozen=True, slots=True)
class Rows:
    """A row range of a file."""

    values: dict[str, list[Any]]  # the columns that the run itself reads, as Python values
    passthrough: pa.Table
    # position within the range → why that row cannot be used
    faults: dict[int, str] = field(default_factory=dict)


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

    def count_rows(self, url: str, limit: int | None, client: storage.Client) -> int:
        """Returns the number of rows of a file; counting may stop at `limit`.

        Raises:
            DatasetError: the file is missing, not readable, or damaged.
        """
        ...

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns of `files`, all of this format, with their types.

        Raises:
            DatasetError: a column is not in all files, or a file is missing, not readable, or
                damaged.
        """
        ...

    def open_cursor(
        self,
        url: str,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        version: str,
        client: storage.Client,
    ) -> AbstractContextManager[Cursor]:
        """Opens a file for reading row ranges; see `pipeline.input.formats.open_cursor`."""
        ...
