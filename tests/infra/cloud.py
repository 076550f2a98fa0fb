"""Small fakes of what a node's scripts use.

Instance metadata, Ray's metrics, and commands that record their arguments.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "a session of the metadata service"
IDENTITY = {"instance-id": "i-0123456789abcdef0", "local-ipv4": "127.0.0.2"}

# A command: notes its arguments, then does what the fake in its place says (a Python function body
# over `args`), or nothing. It has no site-packages, which take most of the time of a start.
COMMAND = """#!{python} -IS
import json, os, pathlib, shutil, sys
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, *args]) + "\\n")
{body}
"""


class Pages:
    """Text by path, served over HTTP on the loopback.

    The metadata service asks for the session that a PUT gave out.
    """

    def __init__(self, pages: dict[str, str], *, session: bool) -> None:
        self.pages, self.session = pages, session
        self.url = ""

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, str]:
        if method == "PUT" and path == "/latest/api/token":
            return 200, TOKEN
        if self.session and token != TOKEN:
            return 401, "IMDSv2 only"
        return (200, self.pages[path]) if path in self.pages else (404, "")


@contextmanager
def serve(pages: dict[str, str], *, session: bool = True) -> Iterator[Pages]:
    """Serves pages until the block ends; `pages` may be changed meanwhile."""
    served = Pages(pages, session=session)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, text = served.answer(
                self.command, self.path, self.headers.get("X-aws-ec2-metadata-token")
            )
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = _answer

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Says nothing: requests are many."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def metadata(**entries: str) -> dict[str, str]:
    """Returns pages of the metadata service: who the instance is, and more entries."""
    return {f"/latest/meta-data/{path}": text for path, text in {**IDENTITY, **entries}.items()}


class Commands:
    """A folder of fake commands, to be put before PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "bin", folder / "commands.jsonl"
        self.folder.mkdir()

    def fake(self, name: str, body: str = "") -> None:
        path = self.folder / name
        path.write_text(
            COMMAND.format(python=sys.executable, log=str(self.log), name=name, body=body)
        )
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return (
            [json.loads(line) for line in self.log.read_text().splitlines()]
            if self.log.exists()
            else []
        )

    def called(self, *beginning: str) -> list[list[str]]:
        return [call for call in self.calls() if call[: len(beginning)] == list(beginning)]

    def env(self, **more: str) -> dict[str, str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "AWS_"))
        }
        return clean | {"PATH": f"{self.folder}:{os.environ['PATH']}"} | more
