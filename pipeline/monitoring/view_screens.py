"""Where the live view is shown: a terminal, a notebook, or the lines of a log."""

import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from pipeline.monitoring.view_text import Frame, log_line, screen_lines


class Screen(Protocol):
    """Shows frames of the view."""

    def open(self) -> None:
        """Begins."""

    def update(self, frame: Frame, *, is_due: bool) -> None:
        """Shows a frame in place; in a log only if a line is due."""

    def keep(self, frame: Frame) -> None:
        """Shows a frame that stays."""

    def close(self) -> None:
        """Ends; frames that do not stay are removed."""


def open_screen(console: Console, write: Callable[[Frame], None]) -> Screen:
    """Returns the screen of a console.

    A stream that is no terminal gets lines, whatever FORCE_COLOR says: in the log of a job, control
    sequences would stay.

    Args:
        console: where the view is.
        write: writes a line of a log.
    """
    if console.is_jupyter:
        return NotebookScreen()
    if console.file.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return TerminalScreen(console)
    return LogScreen(write)


class LogScreen:
    """Lines, each of which stays."""

    def __init__(self, write: Callable[[Frame], None]) -> None:
        """`write` writes a line."""
        self._write = write

    def open(self) -> None:
        """Does nothing."""

    def update(self, frame: Frame, *, is_due: bool) -> None:
        """Writes a line if one is due."""
        if is_due:
            self._write(frame)

    def keep(self, frame: Frame) -> None:
        """Writes a line."""
        self._write(frame)

    def close(self) -> None:
        """Does nothing."""


class TerminalScreen:
    """The last lines of a terminal; messages of the job appear above them."""

    def __init__(self, console: Console) -> None:
        """`console` is a terminal."""
        self._console = console
        # Standard output may be a file: then its lines go there and not above the view.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def open(self) -> None:
        """Reserves the lines."""
        self._live.start()

    def update(self, frame: Frame, *, is_due: bool) -> None:
        """Redraws the lines."""
        self._live.update(screen_lines(frame), refresh=True)

    def keep(self, frame: Frame) -> None:
        """Prints the lines above the view."""
        self._console.print(screen_lines(frame))

    def close(self) -> None:
        """Removes the lines."""
        self._live.stop()


class NotebookScreen:
    """One output of a cell, which is replaced; needs no widgets."""

    def __init__(self) -> None:
        self._output: Any = None

    def open(self) -> None:
        """Creates the output."""
        # Part of every notebook, and no dependency of the command line.
        display = importlib.import_module("IPython.display").display
        self._output = display(_plain_text(""), raw=True, display_id=True)

    def update(self, frame: Frame, *, is_due: bool) -> None:
        """Replaces the output."""
        self._output.update(_plain_text(log_line(frame)), raw=True)

    def keep(self, frame: Frame) -> None:
        """Replaces the output; the next phase gets another one."""
        self.update(frame, is_due=True)
        self.open()

    def close(self) -> None:
        """Empties the output."""
        self._output.update(_plain_text(""), raw=True)


def _plain_text(text: str) -> dict[str, str]:
    """Returns a display of text, as notebooks have it."""
    return {"text/plain": text}
