"""Parquet files of about one size from rows in order, optionally in folders by column values.

    <folder>/train-00000.parquet
    <folder>/topic=sums/train-00000.parquet     with partition columns, which are not in the files

The same rows in the same order give the same files, byte for byte, and each is created once. Memory
is bounded: a file is written when it has its size, and the largest one early when all open files
hold too much. Row groups are cut by number of rows, wherever the rows came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.output.publication import publish_once
from pipeline.synthesis.selection.partitions import segment

MAX_PARTITIONS = 4096
PartitionKey = tuple[str, ...]  # segments of the partition columns


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Size at which a row group is written."""

    rows: int = 10_000
    size_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One object of the data set."""

    path: str  # below the data set's folder
    rows: int
    size: int


@dataclass(slots=True)
class _OpenFile:
    """A file in memory: encoded row groups, and rows of the next group."""

    group_size: GroupSize
    sink: BytesIO = field(default_factory=BytesIO)
    writer: Any = None
    rows: int = 0  # encoded
    pending: list[pa.Table] = field(default_factory=list)
    pending_rows: int = 0
    pending_bytes: int = 0

    @property
    def held_bytes(self) -> int:
        return self.sink.tell() + self.pending_bytes

    @property
    def has_group(self) -> bool:
        return (
            self.pending_rows >= self.group_size.rows
            or self.pending_bytes >= self.group_size.size_bytes
        )

    def add(self, rows: pa.Table) -> None:
        """Adds rows to the next group."""
        self.pending.append(rows)
        self.pending_rows += rows.num_rows
        self.pending_bytes += rows.nbytes

    def encode_group(self, schema: pa.Schema) -> None:
        """Encodes the next row group, an empty one without rows."""
        pending = pa.concat_tables([schema.empty_table(), *self.pending])
        self.pending = []
        self.pending_rows = 0
        self.pending_bytes = 0
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.sink, schema, compression="zstd")

        group_rows = self.group_size.rows
        group = pending.slice(0, group_rows).combine_chunks()
        self.writer.write_table(group, row_group_size=group_rows)
        self.rows += group.num_rows
        if pending.num_rows > group_rows:
            self.add(pending.slice(group_rows))


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
        group_size: GroupSize | None = None,
        max_partitions: int = MAX_PARTITIONS,
    ) -> None:
        """Creates no object yet.

        Args:
            root: URL of the data set.
            folder: folder of the files, below `root`.
            stem: first part of the file names.
            schema: columns of the rows.
            target_bytes: size of a file, compressed; the last one of each folder is smaller.
            partition_by: columns by whose values rows are put into folders.
            group_size: size of row groups; None: the default.
            max_partitions: folders that are allowed.
        """
        self._root = root
        self._folder = folder
        self._stem = stem
        self._target_bytes = target_bytes
        self._partition_by = tuple(partition_by)
        self._group_size = group_size or GroupSize()
        self._max_partitions = max_partitions
        self._max_held_bytes = max(2 * target_bytes, 4 * self._group_size.size_bytes)
        columns = [column for column in schema if column.name not in self._partition_by]
        self._schema = pa.schema(columns)

        self._open: dict[PartitionKey, _OpenFile] = {}
        self._next_number: dict[PartitionKey, int] = {}
        self.written: list[WrittenFile] = []

    @property
    def held_bytes(self) -> int:
        """Memory of the open files, bytes."""
        return sum(file.held_bytes for file in self._open.values())

    def add(self, table: pa.Table) -> None:
        """Adds rows.

        Raises:
            ConfigError: an object exists and holds other rows.
            DatasetError: an object cannot be written, or there are too many partitions.
        """
        for key, rows in self._split(table).items():
            if key not in self._open:
                self._open[key] = _OpenFile(self._group_size)
            self._open[key].add(rows)
            self._encode_full_groups(key)
        while self.held_bytes > self._max_held_bytes:
            self._finish(self._largest())

    def close(self) -> list[WrittenFile]:
        """Writes the open files, an empty one if there never was a row, and returns all files.

        Raises as `add`.
        """
        has_rows = bool(self._next_number or self._open)
        if not has_rows and not self._partition_by:
            self._open[()] = _OpenFile(self._group_size)
            self._open[()].encode_group(self._schema)
        for key in sorted(self._open):
            self._finish(key)
        return self.written

    def _largest(self) -> PartitionKey:
        return max(self._open, key=lambda key: (self._open[key].held_bytes, key))

    def _split(self, table: pa.Table) -> Mapping[PartitionKey, pa.Table]:
        """Returns the rows by partition, in their order."""
        if not self._partition_by:
            if not table.num_rows:
                return {}
            return {(): table.cast(self._schema)}

        segments = [map(segment, table[name].to_pylist()) for name in self._partition_by]
        keys = list(zip(*segments, strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        row_numbers = np.array([numbers[key] for key in keys], np.int64)
        rows = table.select(self._schema.names).cast(self._schema)
        partitions = {}
        for key, number in numbers.items():
            partitions[key] = rows.filter(pa.array(row_numbers == number))
        return partitions

    def _encode_full_groups(self, key: PartitionKey) -> None:
        while self._open[key].has_group:
            self._encode_group(key)

    def _finish(self, key: PartitionKey) -> None:
        """Encodes and writes everything that a partition holds."""
        while self._open[key].has_group or self._open[key].pending_rows:
            self._encode_group(key)
        file = self._open.pop(key)
        if file.writer is not None:
            self._publish(key, file)

    def _encode_group(self, key: PartitionKey) -> None:
        """Encodes one row group, and writes the file if it has its size."""
        file = self._open[key]
        file.encode_group(self._schema)
        if file.sink.tell() < self._target_bytes:
            return
        self._publish(key, file)
        self._open[key] = _OpenFile(self._group_size)
        for rows in file.pending:
            self._open[key].add(rows)

    def _publish(self, key: PartitionKey, file: _OpenFile) -> None:
        file.writer.close()
        number = self._next_number.get(key, 0)
        self._next_number[key] = number + 1
        if len(self._next_number) > self._max_partitions:
            raise DatasetError(
                f"--partition-by {', '.join(self._partition_by)}: expected at most "
                f"{self._max_partitions} different values, got more; choose columns with fewer"
            )
        folders = []
        for name, value in zip(self._partition_by, key, strict=True):
            folders.append(f"{name}={value}")
        path = "/".join([self._folder, *folders, f"{self._stem}-{number:05d}.parquet"])
        data = file.sink.getvalue()
        publish_once(storage.join(self._root, path), data, "rows")
        self.written.append(WrittenFile(path, file.rows, len(data)))
