"""view_text.py: the line of a log and the lines of a terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.monitoring.view_text import Frame, duration, log_line, screen_lines
from tests.pipeline.monitoring.test_snapshot import SNAPSHOT

FRAME = Frame("running", 83.0, 1500, 20_000, SNAPSHOT)


def screen(frame: Frame, width: int = 80) -> list[str]:
    """Returns the lines of a terminal of this width."""
    stream = io.StringIO()
    Console(file=stream, width=width).print(screen_lines(frame))
    return stream.getvalue().splitlines()


def test_log_line_omits_retries_cost_and_note_if_absent() -> None:
    assert log_line(FRAME) == (
        "running | rows 1,500/20,000 (8%) | elapsed 1m23s | ETA 1m01s | tokens/s in 1,234 out 57 | "
        "padding 12.5% | errors 0 | replicas 3/4"
    )


def test_log_line_ends_with_retries_cost_activity_and_note() -> None:
    snapshot = replace(
        SNAPSHOT, retries=1200, cost=1234.5, activity="compiling 3/9", note="stalled"
    )
    parts = log_line(replace(FRAME, snapshot=snapshot)).split(" | ")
    assert parts[-4:] == ["retries 1,200", "cost 1,234.50", "compiling 3/9", "stalled"]


def test_log_line_prints_a_cost_of_zero() -> None:
    assert log_line(replace(FRAME, snapshot=replace(SNAPSHOT, cost=0.0))).endswith(" | cost 0.00")


def test_log_line_of_a_phase_without_figures_has_the_time() -> None:
    assert log_line(Frame("starting Ray", 4.0)) == "starting Ray | elapsed 0m04s"


def test_phase_with_rows_has_a_bar_without_rates() -> None:
    frame = Frame("writing prompts", 4.0, 30, 120)
    assert log_line(frame) == "writing prompts | rows 30/120 (25%) | elapsed 0m04s"
    [line] = screen(frame)
    assert line.startswith("writing prompts  ━")
    assert line.rstrip().endswith("25%  30/120 rows  0m04s")


def test_phase_says_how_far_replicas_are_once() -> None:
    snapshot = replace(SNAPSHOT, activity="compiling 3/9", eta_s=None, rows=0)
    line = log_line(Frame("compiling", 4.0, 0, 20_000, snapshot))
    assert line.startswith("compiling 3/9 | rows 0/20,000 (0%) | elapsed 0m04s | ETA ? | ")
    assert line.count("compiling") == 1


@pytest.mark.parametrize("width", [60, 80, 200])
def test_screen_fits_the_terminal(width: int) -> None:
    lines = screen(FRAME, width)
    assert max(len(line) for line in lines) <= min(width, 100)
    assert "running" in lines[0]


def test_screen_of_eighty_columns_has_two_lines() -> None:
    [first, second] = screen(FRAME)
    assert first.startswith("running  ")
    assert first.rstrip().endswith("8%  1,500/20,000 rows  1m23s  ETA 1m01s")
    assert "━━" in first
    assert second == "tokens/s in 1,234 out 57 | padding 12.5% | errors 0 | replicas 3/4"
    assert screen(Frame("starting Ray", 4.0)) == ["starting Ray  0m04s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (-5.0, "0m00s"), (59.99, "0m59s"), (3600.0, "1h00m00s"), (90_061.0, "25h01m01s")],
)
def test_duration_has_hours_minutes_and_seconds(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
