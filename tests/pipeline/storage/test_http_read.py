"""Files on real HTTP servers: with ranges, without them, and those that refuse."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from actors.retries import RetryPolicy
from pipeline.errors import DatasetError, OutageError
from pipeline.storage.client import Client

CONTENT = bytes(range(256)) * 40
CLIENT = Client(RetryPolicy(retry_window_s=0))


class _Handler(BaseHTTPRequestHandler):
    """`/ranges`, `/whole` (ignores Range), `/unsized` (no length), or a status code."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def do_GET(self) -> None:
        self._send(with_body=True)

    def _send(self, *, with_body: bool) -> None:
        name = self.path.partition("?")[0].strip("/")
        if name.isdigit():
            self.send_response(int(name))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = CONTENT
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if name == "ranges" and requested:
            content = CONTENT[int(requested[1]) : int(requested[2]) + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        if name == "unsized":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["ranges", "whole", "unsized", "ranges?sig=a::b"])
def test_file_is_read_at_any_position(host: str, name: str) -> None:
    with CLIENT.open_object(f"{host}/{name}") as stream:
        stream.seek(9000)
        assert stream.read(100) == CONTENT[9000:9100]
        stream.seek(0)
        assert stream.read() == CONTENT
    with CLIENT.open_object(f"{host}/{name}", sequential=True) as stream:
        assert b"".join(stream) == CONTENT


def test_missing_file_is_not_an_outage(host: str) -> None:
    assert CLIENT.list_objects(f"{host}/404") == ()
    with pytest.raises(DatasetError, match="it does not exist"):
        CLIENT.read(f"{host}/410")


def test_refused_request_names_the_status(host: str) -> None:
    with pytest.raises(DatasetError, match=r"permission denied .*status 403"):
        CLIENT.list_objects(f"{host}/403")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.parquet", "500"])
def test_server_that_fails_is_an_outage(host: str, url: str) -> None:
    if url.isdigit():
        url = f"{host}/{url}"
    with pytest.raises(OutageError, match=r"does not answer .*check the URL"):
        CLIENT.list_objects(url)
