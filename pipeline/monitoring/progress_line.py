"""Shows the progress of a run: a live line on a terminal, or a line of text or JSON every 10 s.

Snapshots also go to sinks, which are functions of a snapshot (Ray metrics, made in jobs).
"""

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot


class ProgressLine:
    """Shows a `Progress` while a `with` block runs."""

    def __init__(
        self,
        progress: Progress,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        sinks: Sequence[Callable[[Snapshot], None]] = (),
        log: RunLog | None = None,
        ends_with_line: bool = True,
    ) -> None:
        """Prepares the line.

        Args:
            progress: what is shown.
            stream: where; standard error by default.
            every_s: between plain lines.
            sinks: also receive the snapshots.
            log: receives the figures as events instead, if it writes JSON.
            ends_with_line: the figures of the end stay on the screen or in the log.
        """
        self._progress = progress
        self._every_s = every_s
        self._ends_with_line = ends_with_line
        self._sinks = sinks
        self._log: RunLog | None = None
        if log is not None and log.is_json:
            self._log = log
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> "ProgressLine":
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        if self._log is not None or not self._console.is_terminal:
            while not self._ended.wait(self._every_s):
                self._print()
            if self._ends_with_line:
                self._print()
            return
        with Live(
            Text(self._line()),
            console=self._console,
            auto_refresh=False,
            transient=not self._ends_with_line,
        ) as live:
            while not self._ended.wait(0.5):
                live.update(Text(self._line()), refresh=True)
            live.update(Text(self._line()), refresh=True)

    def _print(self) -> None:
        if self._log is None:
            print(self._line(), file=self._stream, flush=True)
        else:
            snapshot = self._snapshot()
            self._log.event("progress", snapshot.line(), **_figures(snapshot))

    def _line(self) -> str:
        return self._snapshot().line()

    def _snapshot(self) -> Snapshot:
        snapshot = self._progress.snapshot()
        for sink in self._sinks:
            sink(snapshot)
        return snapshot


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    """Returns the figures of an event.

    The engine's counters are for metrics and the report.
    """
    figures: dict[str, Any] = {}
    for name, value in asdict(snapshot).items():
        if name in {"engine", "progressed_at"}:
            continue
        if isinstance(value, float):
            figures[name] = round(value, 3)
        else:
            figures[name] = value
    return figures
