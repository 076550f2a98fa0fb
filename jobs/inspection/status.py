"""Shows how far a run is, from any machine, while it runs and afterwards.

    grok-batch status RUN [--json]

Reads the run folder alone: run.json, the listing of parts, and the reports of drivers that ended. A
folder of an evaluation or of a synthetic data set shows each of its runs.

Exit codes: 0 the status is shown, whatever it is; 2 the folder holds no run.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.protocol.plain_text import bare
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse
from jobs.cli.positional import name_first_words
from jobs.inspection.run_status import RunStatus, find_runs, read_status
from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.report.figures import duration

STATES = {
    "finished": "finished: every row is committed",
    "stopped": "stopped: the same command continues",
    "running": "running",
    "quiet": "no new part for a while: slow, or its driver was killed; the same command continues",
}


@dataclass(frozen=True)
class StatusConfig:
    """Flags of `status`."""

    run: str | None = flag(None, "run folder; any fsspec URL; also the first word; required")
    json: bool = flag(False, "one line of JSON per run")

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("give the run folder, the --output of the job: status RUN")


def main(arguments: Sequence[str], *, program: str = "status") -> int:
    """Shows the runs of a command line and returns the exit code."""
    return run_command(lambda: _show(arguments, program))


def _show(arguments: Sequence[str], program: str) -> int:
    config = parse(
        StatusConfig,
        name_first_words(arguments, ["--run"]),
        program=f"{program} RUN",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    now_s = time.time()
    for url in find_runs(str(config.run)):
        status = read_status(url)
        if config.json:
            print(json.dumps(as_json(status, now_s)))
        else:
            Console().print(as_table(status, now_s))
    return ExitCode.OK


def as_json(status: RunStatus, now_s: float) -> dict[str, object]:
    """Returns the figures of a run with its state and the seconds that are left."""
    return {
        "state": status.state(now_s),
        **dataclasses.asdict(status),
        "seconds_left": status.seconds_left,
    }


def as_table(status: RunStatus, now_s: float) -> Table:
    """Returns the lines about a run: what it does, how far it is, and how drivers ended."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    state = status.state(now_s)
    lines = [
        ("run", bare(status.url)),
        ("task", f"{status.task}, model {status.model}"),
        ("state", STATES[state]),
        ("rows", _progress(status)),
    ]
    if status.last_part is not None:
        lines.append(("last part", status.last_part + _age(status.last_part_s, now_s)))
    if state == "running" and status.rows_per_s:
        lines.append(("rate", _rate(status)))
    for end in status.ends:
        message = f": {bare(end.message)}" if end.message else ""
        lines.append((f"driver {end.partition}", f"{end.status}{message}"))
    if status.finished:
        lines.append(("report", storage.join(bare(status.url), "report.html")))
    for label, text in lines:
        table.add_row(label, Text(text))
    return table


def _progress(status: RunStatus) -> str:
    share = 1.0
    if status.rows_total:
        share = status.rows / status.rows_total
    return (
        f"{status.rows:,} of {status.rows_total:,} committed ({share:.1%}), "
        f"{status.parts:,} of {status.parts_total:,} parts"
    )


def _age(then_s: float | None, now_s: float) -> str:
    if then_s is None:
        return ""
    return f", {duration(max(0.0, now_s - then_s))} ago"


def _rate(status: RunStatus) -> str:
    text = f"{status.rows_per_s:,.1f} rows/s in the last ten minutes before that part"
    if status.seconds_left is None:
        return text
    return f"{text}; about {duration(status.seconds_left)} left"
