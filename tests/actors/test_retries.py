import errno
import socket
import time
from contextlib import suppress
from http.client import IncompleteRead
from itertools import pairwise
from threading import Barrier, Thread

import aiohttp
import botocore.exceptions as aws
import pytest
from fsspec.exceptions import FSTimeoutError

from actors.retries import RetryPolicy, is_transient
from actors.weights.weight_files import WEIGHT_RETRIES
from pipeline import storage

TRANSIENT = [
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    OSError(errno.EBUSY, "Service Unavailable"),
    OSError(errno.EREMOTEIO, "Internal Error"),
    socket.gaierror(-2, "Name or service not known"),
    IncompleteRead(b""),
    aiohttp.ClientPayloadError("Response payload is not completed"),
    aws.EndpointConnectionError(endpoint_url="http://nowhere"),
    aws.ConnectTimeoutError(endpoint_url="http://slow"),
    aws.ReadTimeoutError(endpoint_url="http://slow"),
    aws.ConnectionClosedError(endpoint_url="http://closed"),
    aws.ResponseStreamingError(error="broken"),
    aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    FSTimeoutError(),
]
PERMANENT = [
    FileNotFoundError(2, "no such key"),
    PermissionError(13, "Access Denied"),
    OSError(errno.EINVAL, "Invalid argument"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("no"),
    aws.NoCredentialsError(),
    aws.ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject"),
]


class FailingCall:
    """Raises `error` so many times, then returns."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.times = times
        self.started_s: list[float] = []

    def __call__(self) -> str:
        self.started_s.append(time.monotonic())
        if len(self.started_s) <= self.times:
            raise self.error
        return "data"


def error_name(error: Exception) -> str:
    return f"{type(error).__name__}-{getattr(error, 'errno', None)}"


@pytest.mark.parametrize("error", TRANSIENT, ids=error_name)
def test_transient_error_is_retried(error: Exception) -> None:
    call = FailingCall(error, 3)
    assert is_transient(error)
    assert RetryPolicy(60.0, first_pause_s=0.0).with_retries(call) == "data"
    assert len(call.started_s) == 4


@pytest.mark.parametrize("error", PERMANENT, ids=error_name)
def test_permanent_error_is_raised_at_once(error: Exception) -> None:
    call = FailingCall(error, 3)
    assert not is_transient(error)
    with pytest.raises(type(error)) as raised:
        RetryPolicy(60.0).with_retries(call)
    assert raised.value is error
    assert len(call.started_s) == 1


def test_exceptions_that_are_no_errors_pass_through() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RetryPolicy(60.0).with_retries(interrupted)


def test_no_attempt_starts_after_the_retry_window() -> None:
    call = FailingCall(TRANSIENT[0], 10_000)
    with pytest.raises(ConnectionResetError):
        RetryPolicy(0.2, first_pause_s=0.02, longest_pause_s=0.05).with_retries(call)
    assert 4 <= len(call.started_s) <= 20
    assert call.started_s[-1] - call.started_s[0] < 0.2 + 0.1


def test_pauses_double_up_to_the_longest() -> None:
    call = FailingCall(TRANSIENT[0], 5)
    policy = RetryPolicy(60.0, 0.02, longest_pause_s=0.08, shortest_pause_share=1.0)
    policy.with_retries(call)
    pauses_s = [late - early for early, late in pairwise(call.started_s)]
    expected_s = [0.02, 0.04, 0.08, 0.08, 0.08]
    for pause_s, least_s in zip(pauses_s, expected_s, strict=True):
        assert least_s <= pause_s < least_s + 0.1


def test_pauses_of_clients_that_failed_together_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    waits_s: list[float] = []
    monkeypatch.setattr(time, "sleep", waits_s.append)
    for _ in range(20):
        RetryPolicy(60.0, first_pause_s=1.0).with_retries(FailingCall(TRANSIENT[0], 1))
    assert len(set(waits_s)) == 20
    assert all(0.5 <= wait_s <= 1.0 for wait_s in waits_s)


def test_clients_with_other_windows_do_not_affect_each_other() -> None:
    """Commits run in threads of their own: nothing about retries belongs to the process."""
    barrier = Barrier(2)
    attempts: dict[str, int] = {}

    def run(name: str, policy: RetryPolicy, times: int) -> None:
        call = FailingCall(TRANSIENT[0], times)
        barrier.wait()
        with suppress(ConnectionResetError):
            policy.with_retries(call)
        attempts[name] = len(call.started_s)

    threads = [
        Thread(target=run, args=("short", RetryPolicy(0.0, first_pause_s=0.01), 5)),
        Thread(target=run, args=("long", RetryPolicy(60.0, first_pause_s=0.01), 5)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert attempts == {"short": 1, "long": 6}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (storage.BEFORE_RUN, RetryPolicy(10.0, 0.5, 20.0, 0.5)),
        (storage.DURING_RUN, RetryPolicy(300.0, 0.5, 20.0, 0.5)),
        (WEIGHT_RETRIES, RetryPolicy(120.0, 0.5, 10.0, 1.0)),
    ],
)
def test_retry_windows_are_those_documented(policy: RetryPolicy, expected: RetryPolicy) -> None:
    assert policy == expected
    assert storage.DEFAULT_CLIENT.retries == storage.BEFORE_RUN
