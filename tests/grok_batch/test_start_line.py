import io
import threading

import pytest

from grok_batch.start_line import CLEAR, start_line

LONG_S = 60.0


class Terminal(io.StringIO):
    """A terminal that reports its first line."""

    def __init__(self) -> None:
        super().__init__()
        self.has_line = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.has_line.set()


def test_start_line_is_shown_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()

    with start_line(terminal, quiet_s=0.0):
        assert terminal.has_line.wait(LONG_S)

    text = terminal.getvalue()
    assert text.startswith(f"{CLEAR}starting  ")
    assert text.endswith(CLEAR)


def test_start_line_is_removed_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()

    def fail() -> None:
        with start_line(terminal, quiet_s=0.0):
            assert terminal.has_line.wait(LONG_S)
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert terminal.getvalue().endswith(CLEAR)


def test_start_line_of_a_quick_import_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()

    with start_line(terminal, quiet_s=LONG_S):
        pass

    assert terminal.getvalue() == ""


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO(), "xterm"), (Terminal(), "dumb")])
def test_start_line_is_on_terminals_only(
    stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)

    with start_line(stream, quiet_s=0.0):
        pass

    assert stream.getvalue() == ""
