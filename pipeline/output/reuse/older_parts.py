"""Committed parts of older runs: an index of their rows by digest, and the rows themselves.

The index takes 24 bytes per row, and 100 while it is built. Of the parts, those that were read last
stay in memory.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.read_ahead import read_ahead
from pipeline.output.provenance import KEYS
from pipeline.output.reuse.footer import (
    COPIED_ROWS,
    DIGEST_TYPE,
    NO_DIGEST,
    Digests,
    copied_row_count,
    read_digests,
)
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import failed_rows, is_without_errors
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import OlderRows

CACHED_BYTES = 256 * 2**20  # of parts that were read
ROW_BITS = 32  # of a location: the row within its part; above them, the number of the part
FOOTER_KEYS = (*KEYS, COPIED_ROWS)
Locations = npt.NDArray[np.int64]
NOT_FOUND = -1


@dataclass(frozen=True, slots=True)
class OlderPart:
    """A committed part of an older run.

    Attributes:
        folder: of the run.
        number: of its shard.
        footer: what its metadata has about devices, versions and copied rows.
        schema: its columns.
        digests: of its input rows, empty for a row with an error; None: the part has none.
        rows: its input rows, where there are digests, else its output rows.
        has_errors: whether a row failed.
        copied_rows: its input rows that the older run had copied.
    """

    folder: RunFolder
    number: int
    footer: dict[str, str]
    schema: pa.Schema
    digests: Digests | None
    rows: int
    has_errors: bool
    copied_rows: int

    @property
    def url(self) -> str:
        """Where it is."""
        return self.folder.part_url(self.number)


def read_parts(folder: RunFolder, fingerprint: str) -> list[OlderPart]:
    """Reads the footers of the committed parts of a run, in order, several at a time.

    Raises:
        ConfigError: a part was written by another run than the one in run.json.
        DatasetError: a part cannot be read.
    """

    def read(number: int) -> OlderPart:
        return _read_part(folder, number, fingerprint)

    return list(read_ahead(read, sorted(folder.committed())))


def _read_part(folder: RunFolder, number: int, fingerprint: str) -> OlderPart:
    url = folder.part_url(number)
    with formats.open_parquet(url, client=folder.client) as parquet:
        metadata = parquet.metadata.metadata or {}
        footer: dict[str, str] = {}
        for name, value in metadata.items():
            footer[name.decode(errors="replace")] = value.decode(errors="replace")
        written_by = footer.get(FINGERPRINT_KEY.decode(), "none")
        if written_by != fingerprint:
            raise ConfigError(
                f"--reuse {folder.url}: {url} was written by a run with fingerprint {written_by}, "
                f"and run.json has {fingerprint}; remove the part, or leave the run out"
            )

        digests = read_digests(footer)
        has_errors = not is_without_errors(parquet.metadata)
        failed: Sequence[int] = ()
        if has_errors:
            failed = failed_rows(parquet.read(columns=["sample_index", "status"]))
        if digests is not None and failed:
            digests = digests.copy()
            digests[list(failed)] = NO_DIGEST
        return OlderPart(
            # Rows are read while replicas are up: an outage is waited for as long as in the run.
            folder=RunFolder(folder.url, storage.RUN_CLIENT),
            number=number,
            footer={name: footer[name] for name in FOOTER_KEYS if name in footer},
            schema=parquet.schema_arrow,
            digests=digests,
            rows=parquet.metadata.num_rows if digests is None else digests.size,
            has_errors=bool(failed),
            copied_rows=copied_row_count(footer),
        )


class PartRows:
    """Rows of parts by digest; implements `OlderParts`."""

    def __init__(self, parts: Sequence[OlderPart], columns: Sequence[str]) -> None:
        """Sorts the digests of all rows.

        Args:
            parts: of all runs; of equal rows, those of the first part count.
            columns: to read; every part has them.
        """
        # The digests of the parts are not needed beside the index.
        self._parts = [replace(part, digests=None) for part in parts]
        self._columns = list(columns)
        self._cached: OrderedDict[int, _PartTable] = OrderedDict()
        self._lock = Lock()

        digests: list[Digests] = [np.empty(0, DIGEST_TYPE)]
        locations: list[Locations] = [np.empty(0, np.int64)]
        for number, part in enumerate(parts):
            if part.digests is None:
                continue
            rows = np.flatnonzero(part.digests != NO_DIGEST)
            digests.append(part.digests[rows])
            locations.append(rows + (number << ROW_BITS))
        all_digests = np.concatenate(digests)
        digests.clear()
        order = np.argsort(all_digests, kind="stable")
        self._digests = all_digests[order]
        self._locations = np.concatenate(locations)[order]

    @property
    def is_empty(self) -> bool:
        """Whether no part has a row with a digest."""
        return not self._digests.size

    def rows_by_run(self, locations: Locations) -> Counter[str]:
        """Returns how many of the locations are in the parts of each run, by its folder."""
        numbers, counts = np.unique(locations >> ROW_BITS, return_counts=True)
        rows: Counter[str] = Counter()
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            rows[self._parts[number].folder.url] += count
        return rows

    def find(self, digests: bytes | bytearray) -> Locations:
        """Returns where the rows with these digests are; `NOT_FOUND` for those that no part has."""
        searched = np.frombuffer(bytes(digests), DIGEST_TYPE)
        if not self._digests.size:
            return np.full(searched.size, NOT_FOUND, np.int64)
        places = np.searchsorted(self._digests, searched)
        places = np.minimum(places, self._digests.size - 1)
        is_found = (self._digests[places] == searched) & (searched != NO_DIGEST)
        locations: Locations = np.where(is_found, self._locations[places], NOT_FOUND)
        return locations

    def take(self, locations: Locations) -> OlderRows:
        """Reads the rows at `locations`, in their order; a part is read once.

        Raises:
            DatasetError: a part cannot be read, or has changed since its footer was read.
        """
        numbers = locations >> ROW_BITS
        part_rows = locations & ((1 << ROW_BITS) - 1)
        tables: list[pa.Table] = []
        samples = np.zeros(locations.size, np.int64)
        begins = np.zeros(locations.size, np.int64)  # of the output rows of each row, in `tables`
        footers: list[dict[str, str]] = []
        runs: dict[str, None] = {}
        first_output_row = 0
        for number in np.unique(numbers).tolist():
            part = self._part(number)
            is_here = numbers == number
            rows = part_rows[is_here]
            samples[is_here] = part.samples[rows]
            begins[is_here] = first_output_row + part.begins[rows]
            first_output_row += part.table.num_rows
            tables.append(part.table)
            footers.append(self._parts[number].footer)
            runs[self._parts[number].folder.url] = None

        joined = pa.concat_tables(tables).unify_dictionaries()
        output_rows = _ranges(begins, samples)
        return OlderRows(joined.take(output_rows), samples, tuple(footers), tuple(runs))

    def _part(self, number: int) -> "_PartTable":
        with self._lock:
            cached = self._cached.get(number)
            if cached is not None:
                self._cached.move_to_end(number)
                return cached
        read = _read_table(self._parts[number], self._columns)
        with self._lock:
            self._cached[number] = read
            while len(self._cached) > 1 and self._cached_bytes() > CACHED_BYTES:
                self._cached.popitem(last=False)
        return read

    def _cached_bytes(self) -> int:
        return sum(part.table.nbytes for part in self._cached.values())


@dataclass(frozen=True, slots=True)
class _PartTable:
    """The output rows of a part; `samples` of each input row, the first of them at `begins`."""

    table: pa.Table
    begins: Locations
    samples: Locations


def _read_table(part: OlderPart, columns: Sequence[str]) -> _PartTable:
    with formats.open_parquet(part.url, client=part.folder.client) as parquet:
        table = parquet.read(columns=list(columns))
    sample_index: Any = table["sample_index"]
    begins = np.flatnonzero(sample_index.to_numpy() == 0)
    samples = np.diff(begins, append=table.num_rows)
    if begins.size != part.rows or pc.any(pc.is_null(table["status"])).as_py():
        raise DatasetError(
            f"--reuse: {part.url} has {begins.size} input rows, expected {part.rows} by its "
            "footer; leave the run out"
        )
    return _PartTable(table, begins, samples)


def _ranges(begins: Locations, lengths: Locations) -> Locations:
    """Returns the numbers of all ranges, one range after the other."""
    ends = np.cumsum(lengths)
    offsets = np.repeat(begins - (ends - lengths), lengths)
    numbers: Locations = offsets + np.arange(offsets.size)
    return numbers
