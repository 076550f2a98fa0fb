"""Retries of calls to object storage: which errors are transient, and how long a call is retried.

Weights (`actors/weights`) and data (`pipeline/storage`) are read through different clients, which
share s3fs and therefore its errors.
"""

import errno
import random
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import TypeVar

import botocore.exceptions as aws
from fsspec.exceptions import FSTimeoutError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_exponential,
)

# s3fs raises OSError with EBUSY for status 503 (and 409), and with EREMOTEIO for status 500
SERVER_ERRNOS = (errno.EBUSY, errno.EREMOTEIO)
# the endpoint is unreachable, or a response is late, broken or cut short; `no_response_errors` adds
# those of aiohttp
NO_RESPONSE: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    FSTimeoutError,
    HTTPException,
    aws.ConnectionError,
    aws.HTTPClientError,
    aws.IncompleteReadError,
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a call is retried, and the pauses between attempts.

    Pauses double from `first_pause_s` up to `longest_pause_s`. Each is drawn uniformly between
    `shortest_pause_share` of it and all of it, so that clients do not come back together.

    No attempt starts later than `retry_window_s` after the first; the last one may take as long as
    its own timeouts allow.
    """

    retry_window_s: float
    first_pause_s: float = 0.5
    longest_pause_s: float = 20.0
    shortest_pause_share: float = 0.5

    def with_retries(self, call: Callable[[], Result]) -> Result:
        """Returns the result of `call`, which is repeated after transient errors.

        Raises what `call` raises: an error that is not transient at once, a transient one when the
        retry window ends.
        """
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=self._pause_s,
            stop=stop_before_delay(self.retry_window_s),
            reraise=True,
        )
        return retrying(call)

    def _pause_s(self, state: RetryCallState) -> float:
        backoff = wait_exponential(multiplier=self.first_pause_s, max=self.longest_pause_s)
        return backoff(state) * random.uniform(self.shortest_pause_share, 1.0)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later.

    True for an overloaded server, a broken or refused connection, a truncated body and a timeout;
    False for a missing object, missing permission and a condition that does not hold.
    """
    if is_changed_object(error):
        return False
    if isinstance(error, OSError) and error.errno in SERVER_ERRNOS:
        return True
    return isinstance(error, no_response_errors())


def no_response_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of endpoints that are unreachable, or whose responses are incomplete."""
    return (*NO_RESPONSE, *http_client_errors())


def http_client_errors() -> tuple[type[Exception], ...]:
    """Returns the base class of aiohttp's errors, or nothing while aiohttp is not imported.

    Stores import aiohttp, which takes a fifth of a second; a job on local files does without. No
    error of a library is raised before its import.
    """
    errors = sys.modules.get("aiohttp.client_exceptions")
    client_error: type[Exception] | None = getattr(errors, "ClientError", None)
    if client_error is None:
        return ()
    return (client_error,)


def is_changed_object(error: BaseException) -> bool:
    """Whether an object that is open for reading has been replaced.

    s3fs gives its error for this the number EBUSY. It is recognized by its name, because importing
    s3fs takes half a second.
    """
    return isinstance(error, OSError) and type(error).__name__ == "FileExpired"
