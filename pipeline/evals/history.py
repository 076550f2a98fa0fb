"""History of evaluation runs: a row per task and metric of each run, and the documents of each run.

    <history>/runs/<run>.parquet       rows of `SCHEMA`
    <history>/samples/<run>.parquet    rows of `scoring.SCHEMA`, from which differences are computed

Objects are created and never changed, samples first, so that a run is complete or absent. Its name
is a digest of the requests and of the scored output: the same report, made twice, is one run.
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
from pipeline.evals.tables import missing_columns, to_table
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
    ("setup", pa.string()),
)
SCHEMA = pa.schema(FIELDS)
LATER_COLUMNS = frozenset({"setup"})  # that runs of earlier versions do not have
PARALLEL_READS = 16
NORMAL_95 = 1.96  # standard errors on each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Entry:
    """A metric of a task or group in one run."""

    run: str
    at: datetime  # when it was first reported, UTC
    name: str  # given by the user
    model: str | None
    checkpoint: str | None
    git_commit: str | None
    task: str
    metric: str
    value: float
    stderr: float | None
    count: int  # documents
    failed: int  # of them: rows with an error, which count as wrong
    documents: str  # digest of the requests: entries are comparable if it is equal
    # digest of model, settings and code; None: unknown, as of a run of another engine
    setup: str | None = None

    @property
    def run_name(self) -> str:
        """Name of the run for people: the one that the user gave, or when it was reported."""
        return run_name(self.name, self.at)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the 95 % confidence interval of the value, within 0 and 1.

        From the standard error, over documents; None without one.
        """
        if self.stderr is None:
            return None
        half_width = NORMAL_95 * self.stderr
        return max(0.0, self.value - half_width), min(1.0, self.value + half_width)


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
        stored = storage.list_objects(storage.join(url, "runs"))
        urls = [file.url for file in stored if file.url.endswith(".parquet")]
        entries: list[Entry] = []
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            for run_entries in pool.map(_read_entries, urls):
                entries += run_entries
        entries.sort(key=lambda entry: (entry.at, entry.run))
        return cls(url, tuple(entries))

    def began(self, run: str) -> datetime | None:
        """Returns when a run was first reported; None for a new one."""
        for entry in self.entries:
            if entry.run == run:
                return entry.at
        return None

    def before(self, entry: Entry) -> list[Entry]:
        """Returns the same metric over the same documents in earlier runs, oldest first."""
        return [earlier for earlier in self.entries if _precedes(earlier, entry)]

    def samples(self, run: str) -> list[Sample]:
        """Returns the documents of a run.

        Raises:
            DatasetError: they do not exist any more.
        """
        with formats.open_parquet(self._samples_url(run)) as parquet:
            return scoring.from_table(parquet.read())

    def add(self, entries: Sequence[Entry], samples: Sequence[Sample]) -> bool:
        """Adds a run and returns whether it is new. Without a URL nothing is kept.

        Raises:
            DatasetError: it could not be written.
        """
        if self.url is None or not entries:
            return False
        run = entries[0].run
        storage.put_if_absent(self._samples_url(run), to_parquet(scoring.to_table(samples)))
        run_url = storage.join(self.url, "runs", f"{run}.parquet")
        return storage.put_if_absent(run_url, to_parquet(to_table(entries, SCHEMA)))

    def _samples_url(self, run: str) -> str:
        return storage.join(str(self.url), "samples", f"{run}.parquet")


def run_name(name: str, reported_at: datetime) -> str:
    """Returns the name of a run for people.

    Args:
        name: given by the user; may be empty.
        reported_at: for the first time, UTC.
    """
    return name or f"{reported_at:%Y-%m-%d %H:%M} UTC"


def run_identity(documents: str, outputs: Iterable[StoredObject], name: str) -> str:
    """Returns the name of a run, a digest.

    Args:
        documents: digest of the requests.
        outputs: objects that were scored.
        name: name given by the user.
    """
    text = f"{documents}\n{name}"
    for stored in outputs:
        text += f"\n{stored.url} {stored.size} {stored.version}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _precedes(earlier: Entry, entry: Entry) -> bool:
    """Returns whether an entry is of an earlier run, and comparable."""
    is_comparable = (
        earlier.task == entry.task
        and earlier.metric == entry.metric
        and earlier.documents == entry.documents
    )
    return is_comparable and earlier.at < entry.at and earlier.run != entry.run


def _read_entries(url: str) -> list[Entry]:
    with formats.open_parquet(url) as parquet:
        names = parquet.schema_arrow.names
        expected = [name for name in SCHEMA.names if name not in LATER_COLUMNS or name in names]
        missing = missing_columns(parquet.schema_arrow, expected)
        if missing:
            raise DatasetError(
                f"{url} is no part of a history of evaluations, columns {missing} are missing; "
                "check --history"
            )
        return [Entry(**row) for row in parquet.read(expected).to_pylist()]
