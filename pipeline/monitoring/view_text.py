"""The live view of a job as text: the line of a log, and the lines of a terminal.

Does not depend on where they are shown.
"""

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.monitoring.snapshot import Snapshot

MAX_WIDTH = 100  # of the view on wide terminals
SEPARATOR = " | "


@dataclass(frozen=True, slots=True)
class Frame:
    """What the view shows at one moment."""

    phase: str
    elapsed_s: float  # since the job began
    rows: int = 0
    rows_total: int = 0  # 0: the phase has no rows
    snapshot: Snapshot | None = None  # None: the phase has no figures

    @property
    def label(self) -> str:
        """The phase, with how far it is: "loading 37 %"."""
        if self.snapshot is not None and self.phase in {"loading", "compiling"}:
            return self.snapshot.activity
        return self.phase

    @property
    def share(self) -> float:
        """Share of the rows that are done."""
        if not self.rows_total:
            return 0.0
        return self.rows / self.rows_total


def log_line(frame: Frame) -> str:
    """Returns the line of a log."""
    parts = [frame.label]
    if frame.rows_total:
        parts.append(f"rows {frame.rows:,}/{frame.rows_total:,} ({frame.share:.0%})")
    parts.append(f"elapsed {duration(frame.elapsed_s)}")
    if frame.snapshot is not None:
        parts.append(f"ETA {duration(frame.snapshot.eta_s)}")
        parts += _figures(frame, frame.snapshot)
    return SEPARATOR.join(parts)


def screen_lines(frame: Frame) -> RenderableType:
    """Returns the lines of a terminal: the phase, a bar if it has rows, and their figures."""
    if not frame.rows_total:
        return Text(f"{frame.label}  {duration(frame.elapsed_s)}", no_wrap=True)

    counts = [
        f"{frame.share:.0%}",
        f"{frame.rows:,}/{frame.rows_total:,} rows",
        duration(frame.elapsed_s),
    ]
    if frame.snapshot is not None:
        counts.append(f"ETA {duration(frame.snapshot.eta_s)}")
    line = Table.grid(expand=True, padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1, min_width=8)
    line.add_column(no_wrap=True)
    bar = ProgressBar(total=frame.rows_total, completed=frame.rows)
    line.add_row(Text(frame.label, style="bold"), bar, Text("  ".join(counts)))
    if frame.snapshot is None:
        return Constrain(line, MAX_WIDTH)
    figures = Text(SEPARATOR.join(_figures(frame, frame.snapshot)))
    return Constrain(Group(line, figures), MAX_WIDTH)


def _figures(frame: Frame, snapshot: Snapshot) -> list[str]:
    """Returns rates, errors, replicas and cost; retries, cost and notes only if there are any."""
    parts = [
        f"tokens/s in {snapshot.tokens_in_per_s:,.0f} out {snapshot.tokens_out_per_s:,.0f}",
        f"padding {snapshot.padding:.1%}",
        f"errors {snapshot.errors:,}",
        f"replicas {snapshot.up}/{snapshot.wanted}",
    ]
    if snapshot.retries:
        parts.append(f"retries {snapshot.retries:,}")
    if snapshot.cost is not None:
        parts.append(f"cost {snapshot.cost:,.2f}")
    if snapshot.activity and snapshot.activity != frame.label:
        parts.append(snapshot.activity)
    if snapshot.note:
        parts.append(snapshot.note)
    return parts


def duration(seconds: float | None) -> str:
    """Returns a duration such as 1m01s; a question mark for one that is not known."""
    if seconds is None:
        return "?"
    minutes, full_seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m{full_seconds:02}s"
    return f"{minutes}m{full_seconds:02}s"
