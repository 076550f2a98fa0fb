import io
import threading

from pipeline.monitoring.progress import Progress
from pipeline.monitoring.progress_line import ProgressLine
from pipeline.monitoring.snapshot import Snapshot


def test_progress_line_logs_plain_lines_and_feeds_sinks() -> None:
    stream, seen, told = io.StringIO(), list[Snapshot](), threading.Event()

    def sink(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        told.set()

    with ProgressLine(Progress(7), stream=stream, every_s=0.01, sinks=[sink]):
        assert told.wait(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(seen) >= 2
    assert all(line.startswith("rows 0/7 | ") for line in lines)


def test_progress_line_of_the_start_leaves_no_line_of_its_end() -> None:
    stream = io.StringIO()
    with ProgressLine(Progress(7), stream=stream, every_s=60.0, ends_with_line=False):
        pass
    assert stream.getvalue() == ""
