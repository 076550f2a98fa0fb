"""Accepted rows, in order → Parquet files of about a size, perhaps in folders by the values of columns; each is created once.

    <folder>/train-00000.parquet
    <folder>/topic=sums/train-00000.parquet          with partition columns, which are then not in the files (Hive)

The same rows in the same order give the same files, byte for byte. Memory is bounded: a file leaves
when it has its size, and the largest one early when all that are open hold too much. A row group is
cut after a number of rows, wherever its rows came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.publication import publish_once
from pipeline.synthesis.selection.rejections import Rejection
from pipeline.synthesis.selection.samples import Judged

GROUP_ROWS, GROUP_BYTES = 10_000, 64 * 2**20
MOST_PARTITIONS = 4096
VALUE_BYTES = 200  # of a partition value as it stands in a path
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One object of the data set."""

    path: str  # below the data set's folder
    rows: int
    size: int


@dataclass(slots=True)
class _OpenFile:
    """A file that is being filled: row groups that are encoded, and rows that wait for their group."""

    sink: BytesIO = field(default_factory=BytesIO)
    writer: Any = None
    rows: int = 0  # encoded
    waiting: list[pa.Table] = field(default_factory=list)
    waiting_rows: int = 0
    waiting_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        return self.sink.tell() + self.waiting_bytes

    @property
    def has_group(self) -> bool:
        return self.waiting_rows >= GROUP_ROWS or self.waiting_bytes >= GROUP_BYTES

    def wait(self, rows: pa.Table) -> None:
        """Takes further rows."""
        self.waiting.append(rows)
        self.waiting_rows += rows.num_rows
        self.waiting_bytes += rows.nbytes

    def encode_group(self, schema: pa.Schema) -> None:
        """Writes the next row group into memory, an empty one if there are no rows."""
        whole = pa.concat_tables([schema.empty_table(), *self.waiting])
        self.waiting, self.waiting_rows, self.waiting_bytes = [], 0, 0
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.sink, schema, compression="zstd")
        group = whole.slice(0, GROUP_ROWS).combine_chunks()
        self.writer.write_table(group, row_group_size=GROUP_ROWS)
        self.rows += group.num_rows
        if whole.num_rows > GROUP_ROWS:
            self.wait(whole.slice(GROUP_ROWS))


def check_partitions(columns: Sequence[str], schema: pa.Schema) -> None:
    """Checks that rows can be put into folders by these columns.

    Raises:
        ConfigError: no such column, one that a file name cannot hold, or of a type that has no plain values; or none is left.
    """
    for name in columns:
        if name not in schema.names:
            raise ConfigError(
                f"--partition-by: the data set has no column {name!r}; it has "
                f"{', '.join(schema.names)}"
            )
        kind: Any = schema.field(name).type
        if not (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
        ):
            raise ConfigError(
                f"--partition-by: {name}: expected a column of strings, integers or booleans, got "
                f"{kind}"
            )
        if not PLAIN_NAME.issuperset(name):
            raise ConfigError(
                f"--partition-by: {name!r}: a folder's name holds letters, digits and _ only; "
                "rename the column"
            )


class Partitions:
    """A stage: leaves out rows whose values cannot be the name of a folder."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)

    def __call__(self, table: pa.Table) -> Judged:
        """Judges every sample."""
        verdicts: list[Rejection | None] = [None] * table.num_rows
        for name in self._columns:
            for place, value in enumerate(table[name].to_pylist()):
                if value == "" or (value is not None and len(_segment(value)) > VALUE_BYTES):
                    verdicts[place] = Rejection(
                        "partition",
                        f"no folder name: {name}",
                        "empty" if value == "" else "too long",
                    )
        return Judged(table, verdicts)


class DataFiles:
    """Files below one folder, filled in the order of the rows."""

    def __init__(
        self,
        root: str,
        folder: str,
        stem: str,
        schema: pa.Schema,
        target_bytes: int,
        partition_by: Sequence[str] = (),
    ) -> None:
        """Creates nothing yet.

        Args:
            root: URL of the data set.
            folder: of the files, below it.
            stem: of their names.
            schema: of the rows.
            target_bytes: size of a file, compressed; the last one of each folder is smaller.
            partition_by: columns by whose values rows are put into folders.
        """
        self._root, self._folder, self._stem, self._target_bytes = root, folder, stem, target_bytes
        self._columns = tuple(partition_by)
        self._schema = pa.schema([each for each in schema if each.name not in self._columns])
        self._open: dict[Key, _OpenFile] = {}
        self._next: dict[Key, int] = {}
        self._most_bytes = max(2 * target_bytes, 4 * GROUP_BYTES)
        self.written: list[WrittenFile] = []

    def add(self, table: pa.Table) -> None:
        """Takes further rows.

        Raises:
            ConfigError: an object is there and holds other rows.
            DatasetError: one cannot be written, or there are too many partitions.
        """
        for key, rows in self._split(table).items():
            self._open.setdefault(key, _OpenFile()).wait(rows)
            self._encode(key, everything=False)
        while sum(each.held_bytes for each in self._open.values()) > self._most_bytes:
            self._encode(
                max(self._open, key=lambda key: (self._open[key].held_bytes, key)), everything=True
            )

    def close(self) -> list[WrittenFile]:
        """Writes what is left, one empty file if there never was a row, and returns all files.

        Raises as `add`.
        """
        if not self._next and not self._open and not self._columns:
            self._open[()] = _OpenFile()
            self._open[()].encode_group(self._schema)
        for key in sorted(self._open):
            self._encode(key, everything=True)
        return self.written

    def _split(self, table: pa.Table) -> Mapping[Key, pa.Table]:
        """Returns the rows by folder; within each, in their order."""
        if not self._columns:
            return {(): table.cast(self._schema)} if table.num_rows else {}
        keys = list(
            zip(*(map(_segment, table[name].to_pylist()) for name in self._columns), strict=True)
        )
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        of_row = np.array([numbers[key] for key in keys], np.int64)
        plain = table.select(self._schema.names).cast(self._schema)
        return {key: plain.filter(pa.array(of_row == number)) for key, number in numbers.items()}

    def _encode(self, key: Key, *, everything: bool) -> None:
        """Encodes the row groups that are full.

        Files that have their size leave. `everything`: and so does what is left.
        """
        opened = self._open[key]
        while opened.has_group or (everything and opened.waiting_rows):
            opened.encode_group(self._schema)
            if opened.sink.tell() >= self._target_bytes:
                self._publish(key, opened)
                rest = opened.waiting
                opened = self._open[key] = _OpenFile()
                for rows in rest:
                    opened.wait(rows)
        if everything:
            if opened.writer is not None:
                self._publish(key, opened)
            del self._open[key]

    def _publish(self, key: Key, opened: _OpenFile) -> None:
        opened.writer.close()
        number = self._next.get(key, 0)
        self._next[key] = number + 1
        if len(self._next) > MOST_PARTITIONS:
            raise DatasetError(
                f"--partition-by {', '.join(self._columns)}: expected at most {MOST_PARTITIONS} "
                "different values, got more; "
                "choose columns with fewer"
            )
        folders = [f"{name}={value}" for name, value in zip(self._columns, key, strict=True)]
        path = "/".join([self._folder, *folders, f"{self._stem}-{number:05d}.parquet"])
        data = opened.sink.getvalue()
        publish_once(storage.join(self._root, path), data, "rows")
        self.written.append(WrittenFile(path, opened.rows, len(data)))


def _segment(value: object) -> str:
    """Returns a value as it stands in a path: everything but letters, digits and `_.-~` percent-encoded."""
    if value is None:
        return NO_VALUE
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")
