"""Reads of weights from object storage → the same reads, repeated during an outage.

Knows no URLs and imports no client.

The clients' errors are told by name: this layer must not import them. `pipeline/storage/retries.py`
does the same for data.
"""

from collections.abc import Callable
from typing import TypeVar

from actors.protocol.retries import BUSY, repeated

OUTAGE_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
PASSING = {
    ("aiohttp", "ClientError"), ("botocore", "HTTPClientError"), ("botocore", "ConnectionError"),
    ("botocore", "ResponseStreamingError"), ("botocore", "IncompleteReadError"), ("fsspec", "FSTimeoutError"),
}  # fmt: skip

Result = TypeVar("Result")


def patiently(read: Callable[[], Result]) -> Result:
    """Returns what `read` returns; reads again after errors that may pass, for `OUTAGE_S`."""
    return repeated(
        read,
        may_pass,
        outage_s=lambda: OUTAGE_S,
        first_pause_s=FIRST_PAUSE_S,
        longest_pause_s=LONGEST_PAUSE_S,
    )


def may_pass(error: Exception) -> bool:
    """Whether the same read may work later: a broken connection, a busy server, a truncated body."""
    if isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in BUSY
    ):
        return True
    return any(
        (kind.__module__.partition(".")[0], kind.__name__) in PASSING
        for kind in type(error).__mro__
    )
