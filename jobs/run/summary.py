"""A run folder → where its results are, how many rows there are, and the first of them as a small table."""

from collections.abc import Iterator, Sequence
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

SHOWN_ROWS, SHOWN_CHARS = 5, 60
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
    """Tells the run's paths and counts, and prints the first rows of this partition, unless the log is for machines.

    `shards`: those of this partition that are committed.
    """
    rows, report = sum(shard.rows for shard in shards), report_url(folder, plan, "html")
    where = f"results  {folder.data_url} ({len(shards):,} files, {rows:,} rows, {failed:,} failed)"
    log.result(None, f"\n{where}")
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
        return
    if not shards:
        return
    first = folder.part_url(shards[0].number)
    shown = list(_first_rows(folder, first))
    names = [name for name in shown[0] if any(row[name] is not None for row in shown)]
    table = Table(title=f"first rows of {first.rsplit('/', 1)[-1]}", title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in shown:
        table.add_row(*(Text(_cell(row[name])) for name in names))
    Console().print(table)


def _first_rows(folder: RunFolder, url: str) -> Iterator[dict[str, Any]]:
    with folder.client.open_object(url) as opened:
        parquet = pq.ParquetFile(opened)
        names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
        first = pa.Table.from_batches([next(parquet.iter_batches(SHOWN_ROWS, columns=names))])
    # bytes that are no text show as nothing
    columns = [formats.python_values(first[name])[0] for name in names]
    yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _cell(value: object) -> str:
    text = _short(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _short(value: object) -> str:
    """Returns a value as it is shown: strings quoted, so that spaces are seen, numbers to two places, lists without brackets."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return repr(value) if isinstance(value, str) else str(value)
