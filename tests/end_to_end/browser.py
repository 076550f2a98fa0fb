"""A headless Chromium, controlled over its DevTools pipe.

Opens a file, reports console messages, evaluates scripts and takes screenshots.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_S = 60.0
# Chromium reads commands from descriptor 3 and answers on 4.
WIRE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """Returns the path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. Use as a context manager."""

    def __init__(self, program: str, profile: Path, width: int = 1200, height: int = 900) -> None:
        self._numbers = itertools.count(1)
        self._unread = b""
        self.events: list[dict[str, Any]] = []
        child_in, self._to = (_above_ten(end) for end in os.pipe())
        self._from, child_out = (_above_ten(end) for end in os.pipe())
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        wired = [sys.executable, "-c", WIRE, str(child_in), str(child_out), *command]
        self._process = subprocess.Popen(
            wired,
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._session = ""

    def __enter__(self) -> "Browser":
        try:
            self._attach()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _attach(self) -> None:
        [target] = [
            each
            for each in self.call("Target.getTargets", root=True)["targetInfos"]
            if each["type"] == "page"
        ]
        attached = self.call(
            "Target.attachToTarget", root=True, targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def complaints(self) -> list[str]:
        """Returns the console output: errors, warnings, exceptions, refused resources."""
        methods = {
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Network.loadingFailed",
        }
        return [json.dumps(event["params"]) for event in self.events if event["method"] in methods]

    def fetched(self) -> list[str]:
        """Returns the URLs that were asked for, data: URLs excepted."""
        asked = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression, evaluated from outside the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)[
            "result"
        ].get("value")

    def photograph(self, box: dict[str, float] | None = None) -> bytes:
        """Returns a PNG of a part of the page, or of all of it."""
        clip = {"clip": {**box, "scale": 1}} if box else {}
        return base64.b64decode(
            self.call("Page.captureScreenshot", captureBeyondViewport=True, **clip)["data"]
        )

    def call(self, method: str, *, root: bool = False, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that come meanwhile are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | (
            {} if root else {"sessionId": self._session}
        )
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer}"
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium said nothing for {PATIENCE_S:g} s"
            piece = os.read(self._from, 1 << 20)
            assert piece, f"Chromium ended with code {self._process.poll()}"
            self._unread += piece
        first, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


def _above_ten(descriptor: int) -> int:
    """Returns a copy of a descriptor that cannot be one of those the child is to have.

    Closes the original.
    """
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip(
            "no Chromium on PATH; as root on Debian: apt-get install --no-install-recommends "
            "chromium"
        )
    with Browser(program, tmp_path / "profile") as opened:
        yield opened
