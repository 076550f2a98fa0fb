"""A moto S3 server over HTTP, one per test session -> a fresh bucket per test, reached by the usual environment variables."""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from moto.server import ThreadedMotoServer

from pipeline import storage

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of the server; started by the first test that asks."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket; the environment of this process (and of those it starts) leads to it."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    url = f"s3://bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(url)
    return url


class S3Faults:
    """A proxy before the S3 server that misbehaves on request: for the `next` requests one by one, or `always`.

    "403", "503": answers with that status. "drop": closes the connection. "lose the answer": passes the request on, then drops.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.next: list[str] = []
        self.always: str | None = None

    def fault(self) -> str | None:
        return self.next.pop(0) if self.next else self.always


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: S3Faults

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.faults.fault()
        if fault == "drop":
            self.close_connection = True
        elif fault in ("403", "503"):
            self._answer(int(fault), {}, b"")
        else:
            answer = self._asked(body)
            if fault == "lose the answer":
                self.close_connection = True
            else:
                self._answer(*answer)

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "expect")}
        with closing(HTTPConnection(self.faults.endpoint.removeprefix("http://"))) as server:
            server.request(self.command, self.path, body, headers)
            reply = server.getresponse()
            return reply.status, dict(reply.headers), reply.read()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        told = {name.lower(): value for name, value in headers.items()}.get("content-length", "0")
        length = told if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        logging.getLogger("s3 proxy").debug("%s %s: %s", self.command, self.path, code)


@pytest.fixture
def s3_faults(s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Faults]:
    """The proxy; from now on the environment leads through it."""
    faults = S3Faults(s3_endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"faults": faults}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield faults
    server.shutdown()
    thread.join()
    server.server_close()


def make_bucket(url: str) -> None:
    """Creates the bucket that `url` names."""
    fs, path = storage._filesystem(url)
    fs.call_s3("create_bucket", Bucket=path)
