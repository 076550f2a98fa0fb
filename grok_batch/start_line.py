"""A line on the terminal while Python imports the modules of a subcommand.

The imports take a second of processor time, several seconds on a busy machine.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

QUIET_S = 0.3  # imports that are shorter show nothing
TICK_S = 0.5
CLEAR = "\r\x1b[2K"


@contextlib.contextmanager
def start_line(stream: TextIO | None = None, *, quiet_s: float = QUIET_S) -> Iterator[None]:
    """Shows how long a command has been starting, until the block ends.

    Args:
        stream: where the line is; standard error by default. One that is no terminal gets nothing.
        quiet_s: time before the line appears.
    """
    stream = stream or sys.stderr
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return

    is_over = threading.Event()
    thread = threading.Thread(
        target=_show, args=(stream, quiet_s, is_over), name="start line", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _show(stream: TextIO, quiet_s: float, is_over: threading.Event) -> None:
    began_s = time.monotonic()
    if is_over.wait(quiet_s):
        return
    is_ended = False
    while not is_ended:
        elapsed_s = time.monotonic() - began_s
        stream.write(f"{CLEAR}starting  {elapsed_s:.0f}s")
        stream.flush()
        is_ended = is_over.wait(TICK_S)
    stream.write(CLEAR)
    stream.flush()
