"""Prints what a run did, where its results are, the first of them, and the next commands."""

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from jobs.cli.row_table import Row, row_table
from jobs.run.plan import Plan
from jobs.run.report import report_url
from jobs.run.reuse.copying import ReuseFigures
from pipeline.input import formats
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot
from pipeline.monitoring.view_text import duration
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard

MAX_ROWS = 5
LABEL_WIDTH = 8
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
    folder: RunFolder,
    plan: Plan,
    shards: Sequence[Shard],
    failed: int,
    snapshot: Snapshot | None,
    log: RunLog,
    reuse: ReuseFigures | None = None,
) -> None:
    """Prints counts, paths and the first rows of this partition, and the commands for the rest.

    With --log-format json: one event, and no rows.

    Args:
        folder: run folder.
        plan: the run.
        shards: the committed shards of this partition.
        failed: number of rows with an error.
        snapshot: figures of this driver at its end; None: it had nothing to run.
        log: of the run.
        reuse: rows that this driver copied from older runs; None: the run has none.
    """
    rows = sum(shard.rows for shard in shards)
    report = report_url(folder, plan, "html")
    counts = f"{len(shards):,} files, {rows:,} rows, {failed:,} failed"
    log.result(None, "")
    log.result(None, f"results  {folder.data_url} ({counts})")
    log.result(None, f"report   {report}")
    if reuse is not None:
        log.result(None, f"reuse    {reuse.text()}")
    if snapshot is not None and snapshot.rows_total:
        for label, text in figure_lines(snapshot).items():
            log.result(None, f"{label:<{LABEL_WIDTH}} {text}")
    if log.is_json:
        log.event(
            "results",
            data=folder.data_url,
            report=report,
            files=len(shards),
            rows=rows,
            failed=failed,
            **_figures(snapshot),
        )
        return
    if not log.shows_results:
        return

    if shards:
        _print_first_rows(folder.part_url(shards[0].number), folder)
    log.result(None, "")
    for line in next_commands(folder.url, failed=failed):
        log.result(None, line)


def figure_lines(snapshot: Snapshot) -> dict[str, str]:
    """Returns the lines about what a driver did, by label."""
    lines = {
        "time": f"{duration(snapshot.elapsed_s)}, from the first replica to the last row",
        "tokens": (
            f"in {snapshot.tokens_in:,} ({snapshot.prefix_reuse:.0%} reused), "
            f"out {snapshot.tokens_out:,}"
        ),
    }
    if snapshot.elapsed_s > 0:
        in_per_s = snapshot.tokens_in / snapshot.elapsed_s
        out_per_s = snapshot.tokens_out / snapshot.elapsed_s
        lines["tokens/s"] = f"in {in_per_s:,.0f}, out {out_per_s:,.0f}"
    if snapshot.windows.windows:
        lines["windows"] = snapshot.windows.text
    if snapshot.finish_reasons:
        lines["finished"] = f"by {_counts(snapshot.finish_reasons)}"
    if snapshot.codes:
        lines["errors"] = _counts(snapshot.codes)
    if snapshot.cost is not None:
        lines["cost"] = f"{snapshot.cost:,.2f} for {snapshot.replica_hours:,.2f} replica-hours"
    return lines


def next_commands(url: str, *, failed: int) -> list[str]:
    """Returns the commands that people type after a run, with their purpose.

    Args:
        url: run folder.
        failed: number of rows with an error.
    """
    folder = shlex.quote(url)
    commands = {
        f"show {folder}": "rows, or one row whole",
        f"compare {folder} OTHER_RUN": "what differs from another run",
        f"status {folder}": "how far it is",
    }
    if failed:
        commands = {f"show {folder} --errors": "the rows that failed"} | commands
    lines: list[str] = []
    width = max(len(command) for command in commands)
    for command, purpose in commands.items():
        lines.append(f"  {program()} {command:<{width}}  {purpose}")
    if failed:
        lines.append("  the same command with --retry-failed runs the failed rows again")
    return lines


def program() -> str:
    """Returns the console command as it is typed in the working directory."""
    if shutil.which("grok-batch"):
        return "grok-batch"
    script = Path(sys.executable).with_name("grok-batch")
    if script.exists():
        return shlex.quote(_relative(script))
    return f"{shlex.quote(_relative(Path(sys.executable)))} -m grok_batch"


def _relative(path: Path) -> str:
    """Returns a path below the working directory relative to it, any other one as it is."""
    here = Path.cwd()
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return str(path)


def _counts(counts: Mapping[str, int]) -> str:
    """Returns counts, the largest first: "stop 250, length 50"."""
    descending = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in descending)


def _figures(snapshot: Snapshot | None) -> dict[str, Any]:
    """Returns the figures of a driver for the event."""
    if snapshot is None:
        return {}
    return {
        "elapsed_s": round(snapshot.elapsed_s, 3),
        "tokens_in": snapshot.tokens_in,
        "tokens_out": snapshot.tokens_out,
        "finish_reasons": snapshot.finish_reasons,
        "codes": snapshot.codes,
        "windows": dataclasses.asdict(snapshot.windows),
        "replica_hours": round(snapshot.replica_hours, 6),
        "cost": snapshot.cost,
    }


def _print_first_rows(url: str, folder: RunFolder) -> None:
    file_name = url.rsplit("/", 1)[-1]
    rows = _first_rows(url, folder)
    names = list(rows[0])
    Console().print(row_table(rows, names, f"first rows of {file_name}"))


def _first_rows(url: str, folder: RunFolder) -> list[Row]:
    """Returns the first rows of an output file."""
    with folder.client.open_object(url) as file:
        parquet = pq.ParquetFile(file)
        names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
        batch = next(parquet.iter_batches(MAX_ROWS, columns=names))
    table = pa.Table.from_batches([batch])

    # Bytes that are not UTF-8 show as nothing.
    values = [formats.python_values(table[name])[0] for name in names]
    return [dict(zip(names, items, strict=True)) for items in zip(*values, strict=True)]
