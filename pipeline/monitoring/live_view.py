"""The live view of a job: its phase from the first second to the last, and its figures.

On a terminal and in a notebook it is redrawn in place. In a log, each phase that lasts has a line,
and there is another one every 10 s, as text or JSON. Snapshots also go to sinks, which are
functions of a snapshot (Ray metrics, made in jobs).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console

from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot
from pipeline.monitoring.view_screens import LogScreen, Screen, open_screen
from pipeline.monitoring.view_text import Frame, log_line

TICK_S = 0.25

Sink = Callable[[Snapshot], None]


@dataclass(frozen=True, slots=True)
class _Phase:
    """A phase of the job, or the figures that name the phase."""

    name: str
    rows: int = 0
    rows_total: int = 0  # 0: the phase has no rows
    progress: Progress | None = None
    sinks: Sequence[Sink] = ()


class LiveView:
    """Shows a job while a `with` block runs, or until `close`.

    One thread names phases, a thread of the view shows them.
    """

    def __init__(
        self,
        log: RunLog | None = None,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        quiet_s: float = 1.0,
        tick_s: float = TICK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock of the job.

        Args:
            log: receives phases and figures as events, if it writes JSON.
            stream: where the view is; standard error by default.
            every_s: between lines of a log, and between the snapshots of sinks.
            quiet_s: a phase that is shorter has no line in a log.
            tick_s: between two looks at the figures.
            clock: seconds, monotonic.
        """
        self._every_s = every_s
        self._quiet_s = quiet_s
        self._tick_s = tick_s
        self._clock = clock
        self.began_s = clock()  # of the job
        self._log: RunLog | None = None
        if log is not None and log.is_json:
            self._log = log
        self._console = Console(file=stream or sys.stderr)
        self._phase = _Phase("starting")
        self._shown_phase = ""
        self._phase_since_s = self.began_s
        self._line_due_s = self.began_s
        self._sinks_due_s = self.began_s
        self._lock = threading.RLock()
        self._is_closed = threading.Event()
        self._screen: Screen = LogScreen(self._write)
        if self._log is None:
            self._screen = open_screen(self._console, self._write)
        self._thread = threading.Thread(target=self._show, name="live view", daemon=True)

    def __enter__(self) -> Self:
        self._screen.open()
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the view; what it showed in place is removed. Later calls have no effect."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        self._thread.join()
        self._screen.close()

    def begin(self, name: str, rows_total: int = 0) -> None:
        """Begins a phase such as "starting Ray"; with rows, `advance` counts them."""
        with self._lock:
            self._phase = _Phase(name, rows_total=rows_total)

    def advance(self, rows: int) -> None:
        """Counts further rows of the phase."""
        with self._lock:
            self._phase = replace(self._phase, rows=self._phase.rows + rows)

    @contextlib.contextmanager
    def following(
        self,
        progress: Progress,
        sinks: Sequence[Sink] = (),
        *,
        next_phase: str,
        keeps_last: bool = True,
    ) -> Iterator[None]:
        """Shows the figures of a run, which name the phase, while the block runs.

        Args:
            progress: the run.
            sinks: receive snapshots every `every_s`, and the last one.
            next_phase: the phase after the block, also after an error.
            keeps_last: the last figures stay on the screen or in the log.
        """
        with self._lock:
            self._phase = _Phase("", progress=progress, sinks=sinks)
            self._sinks_due_s = self._clock() + self._every_s
        try:
            yield
        finally:
            with self._lock:
                frame = self._frame()
                if frame.snapshot is not None:
                    self._publish(frame.snapshot)
                if keeps_last and not self._is_closed.is_set():
                    self._screen.keep(frame)
                self._phase = _Phase(next_phase)

    def _show(self) -> None:
        while not self._is_closed.wait(self._tick_s):
            with self._lock:
                self._update()

    def _update(self) -> None:
        now_s = self._clock()
        frame = self._frame()
        if frame.phase != self._shown_phase:
            self._shown_phase = frame.phase
            self._phase_since_s = now_s
            self._line_due_s = now_s + self._quiet_s
        if frame.snapshot is not None and now_s >= self._sinks_due_s:
            self._sinks_due_s = now_s + self._every_s
            self._publish(frame.snapshot)
        is_due = now_s >= self._line_due_s
        if is_due:
            self._line_due_s = now_s + self._every_s
        self._screen.update(frame, is_due=is_due)

    def _frame(self) -> Frame:
        phase = self._phase
        elapsed_s = self._clock() - self.began_s
        if phase.progress is None:
            return Frame(phase.name, elapsed_s, phase.rows, phase.rows_total)
        snapshot = phase.progress.snapshot()
        return Frame(snapshot.phase, elapsed_s, snapshot.rows, snapshot.rows_total, snapshot)

    def _publish(self, snapshot: Snapshot) -> None:
        for sink in self._phase.sinks:
            sink(snapshot)

    def _write(self, frame: Frame) -> None:
        """Writes a line of the log."""
        line = log_line(frame)
        if self._log is None:
            print(line, file=self._console.file, flush=True)
        elif frame.snapshot is None:
            counts: dict[str, Any] = {}
            if frame.rows_total:
                counts = {"rows": frame.rows, "rows_total": frame.rows_total}
            self._log.event("phase", line, phase=frame.phase, **counts)
        else:
            self._log.event("progress", line, **_figures(frame.snapshot))


@contextlib.contextmanager
def showing(phase: str, log: RunLog) -> Iterator[None]:
    """Shows a phase of a job that has no other view, while the block runs."""
    with LiveView(log) as view:
        view.begin(phase)
        yield


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
