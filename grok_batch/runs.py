"""Results of jobs, read from their folders: rows as tables, reports, metrics.

run = grok_batch.Run("s3://bucket/runs/nightly")     a run of any machine, also one that runs
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec.core
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from actors.protocol.plain_text import bare
from jobs.cli.exit_codes import ExitCode
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.evaluation import METRICS
from pipeline.input import formats
from pipeline.output.run_folder import RunFolder
from pipeline.storage.redaction import redact_credentials


@dataclass(frozen=True)
class Run:
    """A run of the main job.

    Attributes:
        url: run folder.
        exit_code: of the job; None for a run that was opened by its URL.
    """

    url: str
    exit_code: ExitCode | None = None

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the committed rows, in the order of the input.

        Args:
            columns: names; None: all of them.

        Raises:
            DatasetError: no row is committed, or a column does not exist.
        """
        return self._rows(columns, only_errors=False)

    def errors(self) -> pa.Table:
        """Returns the rows that failed, with `error_code` and `error_message`.

        Raises:
            DatasetError: no row is committed.
        """
        return self._rows(None, only_errors=True)

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Returns the committed rows as a pandas.DataFrame.

        Raises:
            ConfigError: pandas is not installed.
            DatasetError: as `table`.
        """
        return to_pandas(self.table(columns))

    @property
    def report(self) -> dict[str, Any]:
        """The figures of report.json: rows, tokens, rates, errors, replicas, cost."""
        return _read_json(storage.join(self.url, "report.json"))

    @property
    def report_url(self) -> str:
        """URL of the report as a page."""
        return storage.join(self.url, "report.html")

    @property
    def description(self) -> dict[str, Any]:
        """The content of run.json: configuration, fingerprint, versions, listing of the input."""
        return _read_json(storage.join(self.url, "run.json"))

    def _rows(self, columns: Sequence[str] | None, *, only_errors: bool) -> pa.Table:
        folder = RunFolder(self.url)
        names = None
        if columns is not None:
            names = list(columns)
        tables: list[pa.Table] = []
        for number in sorted(folder.committed()):
            url = folder.part_url(number)
            with formats.open_parquet(url, client=folder.client) as parquet:
                _check_columns(columns or (), parquet.schema_arrow.names, self.url)
                table = parquet.read(names)
            if only_errors:
                table = table.filter(pc.equal(table["status"], pa.scalar("error")))
            tables.append(table)
        if not tables:
            raise DatasetError(f"{redact_credentials(self.url)}: no row is committed yet")
        return pa.concat_tables(tables)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: its metrics, and the runs over its requests.

    Attributes:
        url: folder of the evaluation.
        exit_code: of the job, 5 for a significant loss; None if opened by its URL.
    """

    url: str
    exit_code: ExitCode | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by task and group, named as lm-evaluation-harness names them."""
        results: dict[str, Any] = _read_json(storage.join(self.url, METRICS))["results"]
        return results

    @property
    def report_url(self) -> str:
        """URL of the report as a page."""
        return storage.join(self.url, "report.html")

    @property
    def runs(self) -> dict[str, Run]:
        """The runs by their task: `score` of choices, `generate` of text."""
        runs: dict[str, Run] = {}
        for task in ("score", "generate"):
            url = storage.join(self.url, task)
            if RunFolder(url).exists():
                runs[task] = Run(url)
        return runs


@dataclass(frozen=True)
class Dataset:
    """A synthetic data set, with the run of its prompts.

    Attributes:
        url: folder of prompts, completions and data set.
        name: of the data set in this folder.
        exit_code: of the job, 6 for fewer rows than wanted; None if opened by its URL.
    """

    url: str
    name: str = "dataset"
    exit_code: ExitCode | None = None

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the accepted rows; columns of partitions are read from the names of folders.

        Args:
            columns: names; None: all of them.
        """
        data_url = storage.join(self.url, self.name, "data")
        filesystem, path = fsspec.core.url_to_fs(data_url)
        dataset = ds.dataset(path, filesystem=filesystem, format="parquet", partitioning="hive")
        table: pa.Table = dataset.to_table(columns=columns)
        return table

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Returns the accepted rows as a pandas.DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        return to_pandas(self.table(columns))

    @property
    def statistics(self) -> dict[str, Any]:
        """Figures of the selection: accepted and rejected samples by stage and reason."""
        return _read_json(storage.join(self.url, self.name, "statistics.json"))

    @property
    def card(self) -> str:
        """The data card, Markdown."""
        return storage.read(storage.join(self.url, self.name, "README.md"))[0].decode()

    @property
    def run(self) -> Run:
        """The run over the prompts."""
        return Run(storage.join(self.url, "completions"))


def to_pandas(table: pa.Table) -> Any:
    """Returns a table as a pandas.DataFrame.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        return table.to_pandas()
    except ModuleNotFoundError as error:
        raise ConfigError(
            "pandas is not installed; install it, e.g. with pip install pandas, or use table(), "
            "which returns a pyarrow.Table"
        ) from error


def _check_columns(columns: Sequence[str], available: Sequence[str], url: str) -> None:
    for name in columns:
        if name not in available:
            raise DatasetError(
                f"{redact_credentials(url)}: {bare(name)} is not a column; there are "
                f"{', '.join(available)}"
            )


def _read_json(url: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(storage.read(url)[0])
    return content
