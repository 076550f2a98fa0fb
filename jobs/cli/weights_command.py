"""What the commands about weights share: errors and signals → exit codes, and a progress line."""

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from actors.protocol.errors import GrokBatchError
from pipeline.errors import ConfigError, InterruptedRunError

OK, FAILED, BAD_ARGUMENTS, INTERRUPTED = 0, 1, 2, 75


def exit_code(work: Callable[[], int]) -> int:
    """Runs `work`.

    Known errors become one sentence and an exit code, SIGTERM and Ctrl-C become 75.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except (InterruptedRunError, KeyboardInterrupt):
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except GrokBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError("SIGTERM")


class ByteProgress:
    """Bytes done of all → a line on the terminal that is rewritten.

    In logs, a line every ten seconds.
    """

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._began = time.monotonic()
        self._shown = 0.0
        self._done = 0

    def add(self, count: int, note: str) -> None:
        """Counts bytes; shows the line when it is time."""
        self._done += count
        now = time.monotonic()
        live = sys.stderr.isatty()
        if self._done < self._total and now - self._shown < (0.2 if live else 10.0):
            return
        self._shown = now
        rate = self._done / max(now - self._began, 1e-6)
        left_s = (self._total - self._done) / max(rate, 1.0)
        line = f"{self._what} {self._done / 1e9:,.2f} of {self._total / 1e9:,.2f} GB, {rate / 1e9:.2f} GB/s, {left_s:,.0f} s left"
        end = "" if live and self._done < self._total else "\n"
        print(
            f"{chr(13) if live else ''}{line}  {note[:60]:<60}",
            end=end,
            file=sys.stderr,
            flush=True,
        )
