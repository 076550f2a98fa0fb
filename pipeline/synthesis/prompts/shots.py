"""Worked examples from a Parquet or JSON-lines file, of which each row gets a few, drawn by its id.

All examples are held in memory, so their number is bounded. An example with the id of the row
itself is never drawn for it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from actors.protocol.plain_text import bare
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.listing import list_input
from pipeline.input.partitions import partition_of
from pipeline.records import InputFile, total_rows
from pipeline.synthesis.prompts.random_choice import distinct_indices, row_random

MAX_SHOTS = 100_000  # examples to draw from
Shot = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Shots:
    """Examples, and how many of them a row gets."""

    rows: tuple[Shot, ...] = ()
    per_row: int = 0
    id_column: str = "id"
    positions: Mapping[object, int] = field(default_factory=dict)  # of the examples that have an id

    def draw(self, seed: int, row_id: str | int) -> tuple[Shot, ...]:
        """Returns the examples of a row in the order in which they are drawn."""
        if not self.per_row:
            return ()

        excluded = self.positions.get(row_id)  # the row itself
        size = len(self.rows)
        if excluded is not None:
            size -= 1

        generator = row_random(seed, row_id, "shots")
        drawn = []
        for index in distinct_indices(size, self.per_row, generator):
            skips_excluded = excluded is not None and index >= excluded
            drawn.append(self.rows[index + skips_excluded])
        return tuple(drawn)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the examples; None without examples."""
        if not self.rows:
            return None
        rows = [dict(row) for row in self.rows]
        text = json.dumps(rows, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def read_shots(url: str, per_row: int, id_column: str = "id", max_shots: int = MAX_SHOTS) -> Shots:
    """Returns the examples of a file, folder or glob.

    Raises:
        DatasetError: nothing there, more than `max_shots` rows, or an unreadable row.
        ConfigError: fewer examples than `per_row`.
    """
    files = list_input(url)
    total = total_rows(files)
    if total > max_shots:
        raise DatasetError(
            f"--shots {bare(url)}: expected at most {max_shots:,} examples, got "
            f"{total:,}; they are held in memory"
        )

    columns = formats.file_columns(files)
    names = columns.names
    from_folders = columns.from_folders
    rows: list[Shot] = []
    for file in files:
        rows += _read_rows(file, names, from_folders)

    positions = {}
    for position, row in enumerate(rows):
        if row.get(id_column) is not None:
            positions[row[id_column]] = position

    available = len(rows)
    beside = ""
    if positions:
        available -= 1
        beside = " beside the row itself"
    if available < per_row:
        raise ConfigError(
            f"--shots-per-row: expected at most the {available} of {bare(url)}"
            f"{beside}, got {per_row}"
        )
    return Shots(tuple(rows), per_row, id_column, positions)


def _read_rows(
    file: InputFile, names: tuple[str, ...], from_folders: tuple[str, ...]
) -> list[Shot]:
    source = formats.SourceFile(file.url, file.version, file.size)
    partition = partition_of(file, from_folders)
    with formats.open_cursor(source, names, pa.schema([]), partition=partition) as cursor:
        read = cursor.take(0, file.rows)
    for row, fault in read.faults.items():
        raise DatasetError(f"--shots: row {row} of {bare(file.url)}: {fault}")

    columns = [read.values[name] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
