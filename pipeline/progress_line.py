"""A run's `Progress` → one live line on a terminal, a plain line every 10 s elsewhere, and whatever sinks are given.

Sinks are functions of a snapshot (Ray metrics, made in jobs). Knows no Ray, no rows and no files.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.progress import Progress, Snapshot


class ProgressLine:
    """Shows a `Progress` while a `with` block runs: a live line on a terminal, otherwise a plain line every `every_s`."""

    def __init__(
        self,
        progress: Progress,
        *,
        stream: TextIO | None = None,
        every_s: float = 10.0,
        sinks: Sequence[Callable[[Snapshot], None]] = (),
    ) -> None:
        """Shows on `stream` (standard error by default); `sinks` get the same snapshots."""
        self._progress, self._every_s, self._sinks = progress, every_s, sinks
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> "ProgressLine":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        if not self._console.is_terminal:
            while not self._ended.wait(self._every_s):
                print(self._tell(), file=self._stream, flush=True)
            print(self._tell(), file=self._stream, flush=True)
            return
        with Live(Text(self._tell()), console=self._console, auto_refresh=False) as live:
            while not self._ended.wait(0.5):
                live.update(Text(self._tell()), refresh=True)
            live.update(Text(self._tell()), refresh=True)

    def _tell(self) -> str:
        snapshot = self._progress.snapshot()
        for sink in self._sinks:
            sink(snapshot)
        return snapshot.line()
