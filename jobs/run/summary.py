"""Prints where the results of a run are, how many rows there are, and the first of them."""

from array import array
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.run.plan import Plan
from jobs.run.report import report_url
from pipeline.input import formats
from pipeline.monitoring.run_log import RunLog
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard

MAX_ROWS = 5
MAX_CHARS = 60
COLUMNS = (
    "id",
    "status",
    "text",
    "finish_reason",
    "completion_tokens",
    "loglikelihood",
    "is_greedy",
    "scored_tokens",
    "error_code",
)


def print_results(
    folder: RunFolder, plan: Plan, shards: Sequence[Shard], failed: int, log: RunLog
) -> None:
    """Prints paths and counts of a run and the first rows of this partition.

    With --log-format json: one event, and no rows.

    Args:
        folder: run folder.
        plan: the run.
        shards: the committed shards of this partition.
        failed: number of rows with an error.
        log: of the run.
    """
    rows = sum(shard.rows for shard in shards)
    report = report_url(folder, plan, "html")
    counts = f"{len(shards):,} files, {rows:,} rows, {failed:,} failed"
    log.result(None, "")
    log.result(None, f"results  {folder.data_url} ({counts})")
    log.result(None, f"report   {report}")
    if log.is_json:
        log.event(
            "results",
            data=folder.data_url,
            report=report,
            files=len(shards),
            rows=rows,
            failed=failed,
        )
    elif shards:
        _print_first_rows(folder.part_url(shards[0].number), folder)


def _print_first_rows(url: str, folder: RunFolder) -> None:
    file_name = url.rsplit("/", 1)[-1]
    table = Table(title=f"first rows of {file_name}", title_justify="left")

    columns: list[list[Text]] = []
    for name, values in _first_values(url, folder).items():
        if any(value is not None for value in values):
            table.add_column(name, overflow="fold")
            columns.append([Text(_cell(value)) for value in values])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    Console().print(table)


def _first_values(url: str, folder: RunFolder) -> dict[str, list[Any]]:
    """Returns the values of the first rows of an output file, by column."""
    with folder.client.open_object(url) as file:
        parquet = pq.ParquetFile(file)
        names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
        batch = next(parquet.iter_batches(MAX_ROWS, columns=names))
    table = pa.Table.from_batches([batch])

    # Bytes that are not UTF-8 show as nothing.
    return {name: formats.python_values(table[name])[0] for name in names}


def _cell(value: object) -> str:
    text = _text(value)
    if len(text) <= MAX_CHARS:
        return text
    return text[: MAX_CHARS - 1] + "…"


def _text(value: object) -> str:
    """Returns a value as text: strings quoted, so that spaces show; numbers with two decimals."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list | array):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, str):
        return repr(value)
    return str(value)
