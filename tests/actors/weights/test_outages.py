import errno
from collections.abc import Callable

import aiohttp
import botocore.exceptions as aws
import pytest
from fsspec.exceptions import FSTimeoutError

from actors.weights import outages
from actors.weights.outages import patiently

PASS = [
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
    OSError(errno.EBUSY, "Service Unavailable"),
    OSError(errno.EREMOTEIO, "Internal Error"),
    aiohttp.ClientPayloadError("Response payload is not completed"),
    aws.EndpointConnectionError(endpoint_url="http://nowhere"),
    aws.ReadTimeoutError(endpoint_url="http://slow"),
    aws.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    FSTimeoutError(),
]
STAY = [
    FileNotFoundError(2, "no such key"),
    PermissionError(13, "Access Denied"),
    ValueError("no"),
    aws.NoCredentialsError(),
    aws.ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject"),
]


def failing(error: Exception, times: int) -> tuple[list[int], Callable[[], str]]:
    calls: list[int] = []

    def read() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return "weights"

    return calls, read


@pytest.mark.parametrize("error", PASS, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.0)
    calls, read = failing(error, 3)
    assert patiently(read) == "weights"
    assert len(calls) == 4


@pytest.mark.parametrize("error", STAY, ids=lambda error: type(error).__name__)
def test_what_stays_is_raised_at_once(error: Exception) -> None:
    calls, read = failing(error, 3)
    with pytest.raises(type(error)):
        patiently(read)
    assert len(calls) == 1


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(outages, "OUTAGE_S", 0.05)
    calls, read = failing(PASS[0], 1000)
    with pytest.raises(ConnectionResetError):
        patiently(read)
    assert 2 <= len(calls) < 1000
