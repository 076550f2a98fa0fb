"""A progress line for work that is measured in bytes."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from actors.protocol.plain_text import bare

LIVE_INTERVAL_S = 0.2  # on a terminal, where the line is rewritten
LOG_INTERVAL_S = 10.0  # in a log, where every line stays
NOTE_CHARS = 60


class ByteProgress:
    """Prints processed bytes, rate and remaining time."""

    def __init__(
        self,
        total_bytes: int,
        verb: str,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
            total_bytes: bytes of the whole work.
            verb: what happens to them, such as "converted".
            stream: where lines go; standard error by default.
            now: clock, seconds.
        """
        self._total_bytes = total_bytes
        self._verb = verb
        self._stream = stream or sys.stderr
        self._now = now
        self._started_s = now()
        self._printed_s = float("-inf")
        self._done_bytes = 0

    def add(self, size_bytes: int, note: str) -> None:
        """Counts processed bytes and prints the line if it is due, with `note` at its end."""
        self._done_bytes += size_bytes
        finished = self._done_bytes >= self._total_bytes
        live = self._stream.isatty()
        interval_s = LIVE_INTERVAL_S if live else LOG_INTERVAL_S

        now_s = self._now()
        if not finished and now_s - self._printed_s < interval_s:
            return
        self._printed_s = now_s

        line = f"{self._line(now_s)}  {bare(note, NOTE_CHARS):<{NOTE_CHARS}}"
        if live:
            line = f"\r{line}"
        if finished or not live:
            line = f"{line}\n"
        self._stream.write(line)
        self._stream.flush()

    def _line(self, now_s: float) -> str:
        elapsed_s = max(now_s - self._started_s, 1e-6)
        bytes_per_s = self._done_bytes / elapsed_s
        left_s = (self._total_bytes - self._done_bytes) / max(bytes_per_s, 1.0)
        return (
            f"{self._verb} {self._done_bytes / 1e9:,.2f} of {self._total_bytes / 1e9:,.2f} GB, "
            f"{bytes_per_s / 1e9:.2f} GB/s, {left_s:,.0f} s left"
        )
