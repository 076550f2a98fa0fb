"""Events of a run → lines on a stream: sentences for people, or one JSON object per event.

An event has a name, a sentence and figures. As text, only events with a sentence are shown, and
only the sentence; as JSON, every event is a line with `time`, `level`, `event`, `run`, the sentence
as `message`, and the figures. Does not depend on rows, Ray or files.
"""

import copy
import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Self, TextIO

from actors.protocol.errors import GrokBatchError
from actors.protocol.plain_text import one_line, plain_message, redact_credentials

LogFormat = Literal["text", "json"]
Level = Literal["info", "warning", "error"]


class RunLog:
    """Logs the events of one run; several threads may use it."""

    # Whether results that are text are printed; another program reads them from the run folder.
    shows_results = True

    def __init__(
        self,
        form: LogFormat = "text",
        *,
        run: str | None = None,
        stream: TextIO | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`run` is part of every line of JSON; `stream` is standard error by default."""
        self.run = run
        self._form = form
        self._stream = stream
        self._now = now
        self._lock = threading.Lock()

    def of_run(self, run: str) -> Self:
        """Returns a log on the same stream, whose events are those of another run."""
        log = copy.copy(self)
        log.run = run
        return log

    def without_results(self) -> Self:
        """Returns a log on the same stream that does not print results as text."""
        log = copy.copy(self)
        log.shows_results = False
        return log

    @property
    def is_json(self) -> bool:
        """Whether lines are JSON; then nothing else should be printed between them."""
        return self._form == "json"

    def result(self, name: str | None, message: str, **figures: Any) -> None:
        """Logs a part of the result: text goes to standard output.

        In JSON it is an event like any other, if it has a name.
        """
        if not self.is_json:
            if self.shows_results:
                self._write(one_line(redact_credentials(message)), sys.stdout)
        elif name is not None:
            self.event(name, message, **figures)

    def event(
        self, name: str, message: str | None = None, *, level: Level = "info", **figures: Any
    ) -> None:
        """Logs an event.

        Credentials in URLs are left out of the sentence and of texts among the figures. As text,
        the sentence becomes one bounded line.
        """
        if message is not None:
            message = redact_credentials(message)
        if not self.is_json:
            if message is not None:
                self._write(plain_message(message), self._stream or sys.stderr)
            return

        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, Any] = {
            "time": time,
            "level": level,
            "event": name,
            "run": self.run,
            "message": message,
        }
        for key, value in figures.items():
            if isinstance(value, str):
                fields[key] = redact_credentials(value)
            else:
                fields[key] = value
        present = {key: value for key, value in fields.items() if value is not None}
        stream = self._stream or sys.stderr
        # a stream that cannot hold a character would escape it in a way that is no JSON
        encoding = (stream.encoding or "utf-8").lower().replace("-", "")
        line = _json_line(present, ascii_only=encoding != "utf8")
        self._write(line, stream)

    def failed(self, error: GrokBatchError, exit_code: int, name: str = "error") -> int:
        """Logs a known error as one line, as event `name`, and returns the exit code."""
        message = f"{name}: {error}"
        if self.is_json:
            message = str(error)
        self.event(name, message, level="error", exit_code=exit_code, error=type(error).__name__)
        return exit_code

    def _write(self, line: str, stream: TextIO) -> None:
        with self._lock:
            stream.write(line + "\n")
            stream.flush()


def _json_line(fields: dict[str, Any], *, ascii_only: bool) -> str:
    """Returns JSON whose control and invisible characters are escapes, which readers undo."""
    line = json.dumps(fields, ensure_ascii=ascii_only)
    if line.isprintable():
        return line
    characters: list[str] = []
    for character in line:
        if character.isprintable():
            characters.append(character)
        else:
            characters.append(json.dumps(character)[1:-1])
    return "".join(characters)
