"""Calls to object storage -> the same calls, repeated during an outage: which errors may pass, and how long to wait.

What may pass (5xx, throttling, broken or refused connections, truncated bodies, no answer) is tried
again with back-off: for `BRIEF_OUTAGE_S` before a run, for `OUTAGE_S` inside
`outages_waited_out()`; the last try may take a few read timeouts on top. What trying again does not
change (no permission, not there, a condition that does not hold) is raised at once. It knows no
URLs.
"""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions as aws
from fsspec.exceptions import FSTimeoutError

from actors.protocol.retries import BUSY, repeated

BRIEF_OUTAGE_S = 10.0
OUTAGE_S = 300.0
# drawn from the upper half: drivers do not come back together
FIRST_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_SHARE = 0.5, 20.0, 0.5
# file systems, S3 clients
CLIENT_ERRORS = (
    OSError,
    aws.BotoCoreError,
    aws.HTTPClientError,
    aiohttp.ClientError,
    HTTPException,
)
NO_ANSWER = (
    aws.EndpointConnectionError, aws.ConnectTimeoutError, aws.ReadTimeoutError, aws.ConnectionClosedError, aws.HTTPClientError,
    aws.ResponseStreamingError, aws.IncompleteReadError, aiohttp.ClientError, HTTPException, FSTimeoutError, ConnectionError,
    TimeoutError, socket.gaierror,
)  # fmt: skip

Result = TypeVar("Result")
_patience = {"outage_s": BRIEF_OUTAGE_S}  # of the process: commits run in threads of their own


@contextmanager
def outages_waited_out(outage_s: float | None = None) -> Iterator[None]:
    """In the block, every operation outlasts outages of object storage of up to `outage_s` (`OUTAGE_S`)."""
    before, _patience["outage_s"] = (
        _patience["outage_s"],
        OUTAGE_S if outage_s is None else outage_s,
    )
    try:
        yield
    finally:
        _patience["outage_s"] = before


def patiently(call: Callable[[], Result]) -> Result:
    """Returns what `call` returns; calls again after errors that may pass, until patience ends."""
    return repeated(
        call,
        may_pass,
        outage_s=lambda: _patience["outage_s"],  # it may end, or begin, while a call waits
        first_pause_s=FIRST_PAUSE_S,
        longest_pause_s=LONGEST_PAUSE_S,
        shortest_share=SHORTEST_SHARE,
    )


def may_pass(error: Exception) -> bool:
    """Whether the same call may work later."""
    if isinstance(error, OSError) and error.errno in BUSY:
        return True
    return isinstance(error, NO_ANSWER) and not isinstance(
        error, PermissionError | FileNotFoundError
    )


class PatientRanges(io.RawIOBase):
    """An object on object storage, read range by range, each patiently."""

    def __init__(self, opened: Any) -> None:
        self._opened, self._size, self._position = opened, int(opened.size), 0
        self.details: Any = getattr(opened, "details", {})

    def readable(self) -> bool:
        """Says yes."""
        return True

    def seekable(self) -> bool:
        """Says yes."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as there is something: one request."""
        count = min(len(buffer), max(0, self._size - self._position))
        data = patiently(lambda: self._range(count)) if count else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Returns the rest: one request."""
        return self.read(max(0, self._size - self._position)) or b""

    def _range(self, count: int) -> bytes:
        self._opened.seek(self._position)
        data: bytes = self._opened.read(count)
        if len(data) != count:
            raise ConnectionError(
                f"{len(data)} bytes came from position {self._position}, {count} were asked for"
            )
        return data
