"""Standard streams that a run survives: the reader has left, the disk is full, ASCII terminals.

A run is worth more than its output on the terminal. What cannot be written is dropped, and what the
encoding of the terminal lacks is written as a backslash escape.
"""

import contextlib
import io
import os
import select
import sys
from typing import Any

STDERR = 2
WAIT_S = 1.0  # between attempts to write to a stream that does not block and is full


class LastingFile(io.FileIO):
    """A descriptor to which writes never fail.

    The first bytes that are lost from standard output are reported on standard error.
    """

    def __init__(self, descriptor: int) -> None:
        """`descriptor` stays open when this object is closed."""
        super().__init__(descriptor, "w", closefd=False)
        self._is_lost = False

    def write(self, data: Any) -> int:
        """Writes bytes, or drops them if that fails. Returns how many were taken."""
        while True:
            try:
                count = super().write(data)
            except OSError as error:
                self._report_loss(error)
                return memoryview(data).nbytes
            if count is not None:
                return count
            # a pipe in non-blocking mode is full
            select.select([], [self], [], WAIT_S)

    def _report_loss(self, error: OSError) -> None:
        if self._is_lost or self.fileno() == STDERR:
            return
        self._is_lost = True
        message = f"warning: standard output is lost ({error.strerror}); the command continues\n"
        # if standard error is lost as well, the warning has no reader
        with contextlib.suppress(OSError):
            os.write(STDERR, message.encode())


def use_lasting_streams() -> None:
    """Replaces standard output and standard error of this process."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, _lasting(getattr(sys, name)))


def _lasting(stream: Any) -> Any:
    if stream is None:  # closed when the process started
        return open(os.devnull, "w")
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return stream  # not of this process, such as a notebook's
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(LastingFile(descriptor)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
