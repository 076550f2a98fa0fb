"""A moto S3 server over HTTP, one per test session, with a fresh bucket per test.

Tests reach it by the usual environment variables.

Another server, such as a radosgw, is tested instead when TEST_S3_ENDPOINT_URL, TEST_S3_ACCESS_KEY
and TEST_S3_SECRET_KEY are set.
"""

import logging
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moto.server import ThreadedMotoServer

from pipeline.storage import s3

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": os.environ.get("TEST_S3_ACCESS_KEY", "test"),
    "AWS_SECRET_ACCESS_KEY": os.environ.get("TEST_S3_SECRET_KEY", "test"),
    "AWS_DEFAULT_REGION": "us-east-1",
}
UNSET = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of the server; started by the first test that asks."""
    if "TEST_S3_ENDPOINT_URL" in os.environ:
        yield os.environ["TEST_S3_ENDPOINT_URL"]
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket.

    The environment of this process (and of those it starts) leads to it.
    """
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    url = f"s3://bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(url)
    return url


class S3Faults:
    """A proxy before the S3 server that injects faults.

    Faults follow a `rule`, a list for the `next` requests one by one, or apply `always`.

    "403", "500", "501", "503": answers with that status. "ignore conditions": passes the request on
    without If-None-Match and If-Match. "drop": closes the connection before the answer.
    "reset": the same, by a TCP reset. "truncate": tells the full length and sends half of the body.
    "slow": keeps the answer for `slow_s`. "lose the answer": passes the request on, then drops.
    "pass": no fault.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.next: list[str] = []
        self.always: str | None = None
        # which requests the faults are for
        self.only: Callable[[str, str], bool] = lambda method, path: True
        # goes before `next`
        self.rule: Callable[[str, str], str | None] = lambda method, path: None
        self.slow_s = 2.0
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, fault
        self._port = 0  # any

    def serve(self) -> None:
        """Listens, from the second time on where it listened before."""
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", self._port), type("Proxy", (_Proxy,), {"faults": self})
        )
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def refuse(self) -> None:
        """Refuses connections until `serve`."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fault(self, method: str, path: str) -> str | None:
        found = self.rule(method, path)
        if found is None and self.only(method, path):
            found = self.next.pop(0) if self.next else self.always
        self.requests.append((method, path, found))
        return found


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: S3Faults

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.faults.fault(self.command, self.path)
        if fault in ("drop", "reset"):
            self._break(fault)
        elif fault in ("403", "500", "501", "503"):
            self._answer(int(fault), {}, b"")
        else:
            dropped_headers = ("if-none-match", "if-match") if fault == "ignore conditions" else ()
            answer = self._asked(body, dropped_headers)
            if fault == "slow":
                time.sleep(self.faults.slow_s)
            if fault == "lose the answer":
                self._break(fault)
            else:
                self._answer(*answer, truncated=fault == "truncate")

    def _break(self, fault: str) -> None:
        self.close_connection = True
        if fault == "reset":
            # Lingering on, for 0 s: closing sends RST. shutdown() before it would send FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _asked(
        self, body: bytes, dropped_headers: tuple[str, ...]
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "expect", *dropped_headers)
        }
        if "TEST_S3_ENDPOINT_URL" in os.environ:
            # it is part of what was signed, and a real server checks
            headers["Host"] = self.headers["Host"]
        with closing(HTTPConnection(self.faults.endpoint.removeprefix("http://"))) as server:
            server.request(self.command, self.path, body, headers)
            reply = server.getresponse()
            return reply.status, dict(reply.headers), reply.read()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, *, truncated: bool = False
    ) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            told = {name.lower(): value for name, value in headers.items()}.get(
                "content-length", "0"
            )
            length = told if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if truncated else body)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up: it was a slow answer
        if truncated:
            self.close_connection = True

    def log_request(self, code: object = "-", size: object = "-") -> None:
        logging.getLogger("s3 proxy").debug("%s %s: %s", self.command, self.path, code)


@pytest.fixture
def s3_faults(s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Faults]:
    """The proxy; from now on the environment leads through it."""
    faults = S3Faults(s3_endpoint)
    faults.serve()
    monkeypatch.setenv("AWS_ENDPOINT_URL", faults.url)
    yield faults
    faults.refuse()


def make_bucket(url: str) -> None:
    """Creates the bucket that `url` names."""
    fs, path = s3.filesystem(url, s3.S3Config())
    fs.call_s3("create_bucket", Bucket=path)
