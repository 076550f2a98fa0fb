"""Reads of weights from object storage → the same reads, repeated during an outage. Knows no URLs and imports no client.

The clients' errors are told by name: this layer must not import them. `pipeline/patience.py` does the same for data.
"""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

OUTAGE_S = 120.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
BUSY = (errno.EBUSY, errno.EREMOTEIO)  # how s3fs says 503, and 500
PASSING = {
    ("aiohttp", "ClientError"), ("botocore", "HTTPClientError"), ("botocore", "ConnectionError"),
    ("botocore", "ResponseStreamingError"), ("botocore", "IncompleteReadError"), ("fsspec", "FSTimeoutError"),
}  # fmt: skip

Result = TypeVar("Result")


def patiently(read: Callable[[], Result]) -> Result:
    """Returns what `read` returns; reads again after errors that may pass, for `OUTAGE_S`."""
    began_s, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return read()
        except Exception as error:
            if not may_pass(error) or time.monotonic() + pause_s - began_s > OUTAGE_S:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def may_pass(error: Exception) -> bool:
    """Whether the same read may work later: a broken connection, a busy server, a truncated body."""
    if isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno in BUSY):
        return True
    return any((kind.__module__.partition(".")[0], kind.__name__) in PASSING for kind in type(error).__mro__)
