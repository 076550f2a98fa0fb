"""view_screens.py: terminals, logs and notebooks."""

import io
import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from pipeline.monitoring.view_screens import (
    LogScreen,
    NotebookScreen,
    TerminalScreen,
    open_screen,
)
from pipeline.monitoring.view_text import Frame, log_line
from tests.pipeline.monitoring.test_snapshot import SNAPSHOT

FRAME = Frame("running", 83.0, 1500, 20_000, SNAPSHOT)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def drop(frame: Frame) -> None:
    """Writes nothing."""


@pytest.mark.parametrize(
    ("stream", "variables", "screen_class"),
    [
        (Terminal(), {"TERM": "xterm"}, TerminalScreen),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, TerminalScreen),
        (Terminal(), {"TERM": "dumb"}, LogScreen),
        (io.StringIO(), {"TERM": "xterm"}, LogScreen),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, LogScreen),
    ],
)
def test_screen_follows_the_stream(
    stream: io.StringIO, variables: dict[str, str], screen_class: type
) -> None:
    console = Console(file=stream, _environ=variables)
    assert isinstance(open_screen(console, drop), screen_class)


def test_terminal_is_redrawn_and_left_clean() -> None:
    stream = Terminal()
    console = Console(file=stream, width=80, _environ={"TERM": "xterm", "NO_COLOR": "1"})
    screen = TerminalScreen(console)
    screen.open()
    screen.update(Frame("starting Ray", 1.0), is_due=False)
    screen.update(FRAME, is_due=False)
    screen.keep(FRAME)
    screen.close()
    text = stream.getvalue()
    assert "starting Ray  0m01s" in text
    assert text.count("1,500/20,000 rows") >= 2
    assert "\x1b[38;" not in text, "NO_COLOR"
    assert text.rindex("\x1b[2K") > text.rindex("replicas 3/4"), "the lines are erased"


def test_log_writes_lines_that_are_due_and_the_last_one() -> None:
    frames: list[Frame] = []
    screen = LogScreen(frames.append)
    screen.open()
    screen.update(Frame("a", 1.0), is_due=False)
    screen.update(Frame("b", 2.0), is_due=True)
    screen.keep(Frame("c", 3.0))
    screen.close()
    assert [frame.phase for frame in frames] == ["b", "c"]


class FakeOutput:
    """One output of a notebook."""

    def __init__(self, data: dict[str, str]) -> None:
        self.texts = [data["text/plain"]]

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.texts.append(data["text/plain"])


def test_notebook_replaces_one_output_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[FakeOutput] = []

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> FakeOutput:
        assert raw
        assert display_id
        outputs.append(FakeOutput(data))
        return outputs[-1]

    module: Any = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    console = Console(file=io.StringIO(), force_jupyter=True)
    screen = open_screen(console, drop)
    assert isinstance(screen, NotebookScreen)
    screen.open()
    screen.update(FRAME, is_due=False)
    screen.keep(FRAME)
    screen.close()
    assert [output.texts[-1] for output in outputs] == [log_line(FRAME), ""]
