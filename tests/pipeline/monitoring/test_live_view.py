"""live_view.py: phases and figures in logs, as events, and in sinks."""

import io
import json
import threading

import pytest

from pipeline.monitoring.live_view import LiveView
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.run_log import RunLog
from pipeline.monitoring.snapshot import Snapshot


class Lines(io.StringIO):
    """A log; `arrived` is set when it holds a text."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self.awaited = awaited
        self.arrived = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if self.awaited in self.getvalue():
            self.arrived.set()
        return count


def view(stream: io.StringIO, log: RunLog | None = None, quiet_s: float = 0.0) -> LiveView:
    return LiveView(log, stream=stream, every_s=0.01, quiet_s=quiet_s, tick_s=0.001)


def test_log_has_a_line_for_each_phase_that_lasts() -> None:
    stream = Lines("starting Ray")
    with view(stream) as live:
        live.begin("starting Ray")
        assert stream.arrived.wait(60)
    lines = stream.getvalue().splitlines()
    assert any(line.startswith("starting Ray | elapsed 0m") for line in lines)


def test_log_has_no_line_for_a_short_phase() -> None:
    stream = io.StringIO()
    progress = Progress(7)
    with view(stream, quiet_s=3600.0) as live:
        live.begin("reading the input")
        with live.following(progress, next_phase="writing the report", keeps_last=False):
            pass
    assert stream.getvalue() == ""


def test_figures_go_to_the_log_and_to_sinks() -> None:
    stream = io.StringIO()
    snapshots: list[Snapshot] = []
    was_published = threading.Event()

    def sink(snapshot: Snapshot) -> None:
        snapshots.append(snapshot)
        was_published.set()

    progress = Progress(7, replicas=lambda: (1, 1))
    live = view(stream)
    with live, live.following(progress, [sink], next_phase="writing the report"):
        assert was_published.wait(60)
    assert len(snapshots) >= 2, "the last figures are published too"
    kept = [
        line for line in stream.getvalue().splitlines() if line.startswith("running | rows 0/7")
    ]
    assert kept


def test_phases_are_events_of_a_json_log() -> None:
    stream = Lines('"phase"')
    with view(io.StringIO(), RunLog("json", stream=stream)) as live:
        live.begin("starting Ray")
        assert stream.arrived.wait(60)
    event = json.loads(stream.getvalue().splitlines()[-1])
    assert (event["event"], event["level"]) == ("phase", "info")
    assert event["phase"] in {"starting", "starting Ray"}


def test_phase_after_the_figures_is_named_after_an_error() -> None:
    stream = Lines("writing the report")
    with view(stream) as live:
        with (
            pytest.raises(ValueError, match="lost"),
            live.following(Progress(7), next_phase="writing the report"),
        ):
            raise ValueError("lost")
        assert stream.arrived.wait(60)
    live.close()


def test_rows_of_a_phase_are_counted() -> None:
    stream = Lines("rows 7/9 (78%)")
    with view(stream) as live:
        live.begin("writing prompts", rows_total=9)
        live.advance(3)
        live.advance(4)
        assert stream.arrived.wait(60)
