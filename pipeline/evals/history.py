"""Runs of evaluations, kept in a folder or bucket: a row per task and metric of each run, and each run's documents.

    <history>/runs/<run>.parquet       rows of `SCHEMA`
    <history>/samples/<run>.parquet    rows of `scoring.SCHEMA`: what differences are computed from

Objects are created and never changed, samples first, so that a run is there as a whole or not at
all. Its name is a digest of what was asked and of the output that was judged: the same report, made
twice, is one run. Knows no tasks and no statistics.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.evals import scoring
from pipeline.evals.scoring import Sample
from pipeline.input import formats
from pipeline.output.publication import to_parquet
from pipeline.storage import StoredObject

FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("run", pa.string()),
    ("at", pa.timestamp("us", "UTC")),
    ("name", pa.string()),
    ("model", pa.string()),
    ("checkpoint", pa.string()),
    ("git_commit", pa.string()),
    ("task", pa.string()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("stderr", pa.float64()),
    ("count", pa.int64()),
    ("failed", pa.int64()),
    ("documents", pa.string()),
)
SCHEMA = pa.schema(FIELDS)
READ_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric of a task or group in one run."""

    run: str
    at: datetime  # when it was first reported, UTC
    name: str  # what its user called the run
    model: str | None
    checkpoint: str | None
    git_commit: str | None
    task: str
    metric: str
    value: float
    stderr: float | None
    count: int  # documents
    failed: int  # of them: rows with an error, which count as wrong
    documents: str  # digest of what was asked: entries are comparable if it is equal


@dataclass(frozen=True, slots=True)
class History:
    """All runs below `url`; None: no history is kept."""

    url: str | None
    entries: tuple[Entry, ...] = field(default=())

    @classmethod
    def load(cls, url: str | None) -> "History":
        """Reads the rows of all runs, oldest first.

        Raises:
            DatasetError: the folder cannot be read, or holds something else.
        """
        if url is None:
            return cls(None)
        files = [
            stored.url
            for stored in storage.list_objects(storage.join(url, "runs"))
            if stored.url.endswith(".parquet")
        ]
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            entries = [entry for rows in pool.map(_read_entries, files) for entry in rows]
        return cls(url, tuple(sorted(entries, key=lambda entry: (entry.at, entry.run))))

    def began(self, run: str) -> datetime | None:
        """Returns when a run was first reported; None for a new one."""
        return next((entry.at for entry in self.entries if entry.run == run), None)

    def before(self, entry: Entry) -> list[Entry]:
        """Returns the same metric over the same documents in the runs before, oldest first."""
        alike = (entry.task, entry.metric, entry.documents)
        return [
            each
            for each in self.entries
            if (each.task, each.metric, each.documents) == alike
            and each.at < entry.at
            and each.run != entry.run
        ]

    def samples(self, run: str) -> list[Sample]:
        """Returns the documents of a run.

        Raises:
            DatasetError: they are not there any more.
        """
        with formats.open_parquet(self._samples_url(run)) as parquet:
            return scoring.from_table(parquet.read())

    def add(self, entries: Sequence[Entry], samples: Sequence[Sample]) -> bool:
        """Adds a run; returns whether it was new. Without a URL nothing is kept.

        Raises:
            DatasetError: it could not be written.
        """
        if self.url is None or not entries:
            return False
        run = entries[0].run
        storage.put_if_absent(self._samples_url(run), to_parquet(scoring.to_table(samples)))
        columns = {
            name: pa.array([getattr(entry, name) for entry in entries], kind)
            for name, kind in FIELDS
        }
        return storage.put_if_absent(
            storage.join(self.url, "runs", f"{run}.parquet"),
            to_parquet(pa.table(columns, schema=SCHEMA)),
        )

    def _samples_url(self, run: str) -> str:
        return storage.join(str(self.url), "samples", f"{run}.parquet")


def run_identity(documents: str, outputs: Iterable[StoredObject], name: str) -> str:
    """Returns the name of a run: what was asked, which objects were judged, and what its user calls it."""
    told = [
        documents,
        name,
        *(f"{stored.url} {stored.size} {stored.version}" for stored in outputs),
    ]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def _read_entries(url: str) -> list[Entry]:
    with formats.open_parquet(url) as parquet:
        missing = [name for name in SCHEMA.names if name not in parquet.schema_arrow.names]
        if missing:
            raise DatasetError(
                f"{url} is no part of a history of evaluations, columns {missing} are missing; "
                "check --history"
            )
        return [Entry(**row) for row in parquet.read(SCHEMA.names).to_pylist()]
