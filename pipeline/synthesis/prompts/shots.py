"""A Parquet or JSON-lines file of worked examples → the few that each row gets, drawn by the row's id. It knows no templates.

All examples are held in memory, so their number is bounded. An example with the id of the row
itself is never among its own.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.columns import common_schema
from pipeline.input.shards import list_input
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.prompts.random_choice import distinct_indices, row_random

MAX_SHOTS = 100_000  # examples to draw from
Shot = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Shots:
    """Examples and how many of them a row gets."""

    rows: tuple[Shot, ...] = ()
    per_row: int = 0
    id_column: str = "id"
    positions: Mapping[object, int] = field(default_factory=dict)  # of the examples that have an id

    def draw(self, seed: int, row_id: str | int) -> tuple[Shot, ...]:
        """Returns the examples of a row, in the order in which they were drawn."""
        if not self.per_row:
            return ()
        own = self.positions.get(row_id)
        others = len(self.rows) - (own is not None)
        chosen = distinct_indices(others, self.per_row, row_random(seed, row_id, "shots"))
        return tuple(self.rows[index + (own is not None and index >= own)] for index in chosen)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the examples; None where there are none."""
        if not self.rows:
            return None
        told = json.dumps([dict(row) for row in self.rows], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()


def read_shots(url: str, per_row: int, id_column: str = "id") -> Shots:
    """Returns the examples of a file, folder or glob.

    Raises:
        DatasetError: nothing there, more than `MAX_SHOTS` rows, or a row that cannot be read.
        ConfigError: fewer examples than each row is to get.
    """
    shown = redact_credentials(url)
    files = list_input(url)
    total = sum(file.rows for file in files)
    if total > MAX_SHOTS:
        raise DatasetError(
            f"--shots {shown}: expected at most {MAX_SHOTS:,} examples, got {total:,}; they are "
            "held in memory"
        )
    names = tuple(common_schema(files).names)
    rows: list[Shot] = []
    for file in files:
        with formats.open_cursor(file.url, names, pa.schema([]), file.version) as cursor:
            read = cursor.take(0, file.rows)
        for row, fault in read.faults.items():
            raise DatasetError(f"--shots: row {row} of {redact_credentials(file.url)}: {fault}")
        rows += [
            dict(zip(names, values, strict=True))
            for values in zip(*(read.values[name] for name in names), strict=True)
        ]
    positions = {
        row[id_column]: place for place, row in enumerate(rows) if row.get(id_column) is not None
    }
    if len(rows) - bool(positions) < per_row:
        beside = " beside the row itself" if positions else ""
        raise ConfigError(
            f"--shots-per-row: expected at most the {len(rows) - bool(positions)} of "
            f"{shown}{beside}, got {per_row}"
        )
    return Shots(tuple(rows), per_row, id_column, positions)
