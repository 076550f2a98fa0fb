"""What the driver's stages hand to each other.

The types that cross to the replicas are in actors/protocol/messages.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.protocol.messages import Completion, RowRef
from pipeline.errors import DatasetError

# Items of the stream that a stage does not work on: they pass through it in their order.
Passing = TypeVar("Passing")

DIGEST_BYTES = 16  # of the digest of a row


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input listing.

    `version` is its ETag on object storage and its modification time (ns) on disk.
    """

    url: str
    size: int
    version: str
    rows: int
    # columns that the names of its folders give, such as `subject=math/`
    partition: "Partition" = ()
    # its own columns with their types, in the form of its format; None: not read yet
    columns: Any = field(default=None, compare=False, repr=False)


# Names and values of columns; None is null.
PartitionValue = str | int | float | None
Partition = tuple[tuple[str, PartitionValue], ...]


def total_rows(files: Iterable[InputFile]) -> int:
    """Returns the number of rows of all files."""
    return sum(file.rows for file in files)


@dataclass(frozen=True, slots=True)
class OlderRows:
    """Output rows of older runs, of some input rows.

    Attributes:
        table: output columns.
        samples: output rows of each input row.
        footers: metadata of the parts that hold the rows.
        runs: URLs of their runs, each once.
    """

    table: pa.Table
    samples: npt.NDArray[np.int64]
    footers: tuple[Mapping[str, str], ...]
    runs: tuple[str, ...]


class OlderParts(Protocol):
    """Parts of older runs, whose rows are addressed by numbers."""

    def take(self, locations: npt.NDArray[np.int64]) -> OlderRows:
        """Reads the rows at `locations`, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class CopiedRows:
    """Rows of a shard that are copied from older runs, and where these have them."""

    rows: npt.NDArray[np.int64]  # within the shard, ascending
    locations: npt.NDArray[np.int64]
    parts: OlderParts
    digests: bytes  # of these rows


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of one input file; becomes one output object, `data/part-<number>.parquet`."""

    number: int
    url: str
    first_row: int
    rows: int
    # rows (within the shard) to run: those to run again under --retry-failed, or those that are not
    # copied; None: all
    only: tuple[int, ...] | None = None
    version: str = ""  # of the file when it was listed; empty: not checked when it is read
    size: int | None = None  # of the file when it was listed, in bytes
    partition: Partition = ()  # as of its file
    # of a sample: its rows, counted from `first_row` and ascending; None: consecutive rows
    offsets: tuple[int, ...] | None = None
    # the rows that are not run; None: no row is copied
    copied: CopiedRows | None = field(default=None, compare=False)

    def file_row(self, position: int) -> int:
        """Returns the row of the file that has a position within the shard."""
        if self.offsets is None:
            return self.first_row + position
        return self.first_row + self.offsets[position]

    def head(self, rows: int) -> "Shard":
        """Returns the first rows of the shard, at most `rows`."""
        offsets = self.offsets
        if offsets is not None:
            offsets = offsets[:rows]
        return replace(self, rows=min(self.rows, rows), offsets=offsets)

    def ranges(self) -> Iterator[range]:
        """Yields the row ranges of the file that the shard consists of, ascending."""
        if self.offsets is None:
            yield range(self.first_row, self.first_row + self.rows)
            return
        begin = self.offsets[0]
        end = begin
        for offset in self.offsets:
            if offset != end:
                yield range(self.first_row + begin, self.first_row + end)
                begin = offset
            end = offset + 1
        yield range(self.first_row + begin, self.first_row + end)


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One input row.

    Of each pair (text, ids) the input has one column at most; values are as found, not yet
    validated.
    """

    ref: RowRef
    id: str | int
    prompt: object = None  # text
    prompt_token_ids: object = None
    continuation: object = None  # text
    continuation_token_ids: object = None
    choices: object = None  # list of strings
    choices_token_ids: object = None  # list of lists of ids
    # sampling parameters that the row's own columns set, by name; not validated
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardOpened:
    """Travels in the stream before the first row of its shard, from the reader to the writer.

    `passthrough` has one row per row of the shard that is run or copied, in input order.
    `digests` has `DIGEST_BYTES` per row of the shard, all zero until the row becomes requests; None
    where nobody needs them.
    """

    shard: Shard
    passthrough: pa.Table
    digests: bytearray | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class UnreadableShard:
    """Travels in the stream in place of the rows of a shard that cannot be read."""

    shard: Shard
    error: DatasetError


ShardNotice = ShardOpened | UnreadableShard


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One finished sample with its text, ready to be written."""

    completion: Completion
    text: str | None
