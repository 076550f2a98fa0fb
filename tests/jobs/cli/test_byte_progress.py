"""jobs/cli/byte_progress.py: when lines are printed, and what they say."""

import io

from jobs.cli.byte_progress import ByteProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_progress_in_a_log_prints_every_ten_seconds_and_at_the_end() -> None:
    log = io.StringIO()
    clock = Clock()
    progress = ByteProgress(40 * 10**9, "read", log, clock)
    for now_s in (1.0, 5.0, 12.0, 13.0):
        clock.now_s = now_s
        progress.add(10 * 10**9, f"tensor at {now_s:g}")
    lines = [line.rstrip() for line in log.getvalue().splitlines()]
    assert lines == [
        "read 10.00 of 40.00 GB, 10.00 GB/s, 3 s left  tensor at 1",
        "read 30.00 of 40.00 GB, 2.50 GB/s, 4 s left  tensor at 12",
        "read 40.00 of 40.00 GB, 3.08 GB/s, 0 s left  tensor at 13",
    ]


def test_progress_on_a_terminal_rewrites_its_line() -> None:
    terminal = Terminal()
    clock = Clock()
    progress = ByteProgress(2 * 10**9, "read", terminal, clock)
    clock.now_s = 1.0
    progress.add(10**9, "first")
    clock.now_s = 2.0
    progress.add(10**9, "last")
    printed = terminal.getvalue()
    assert printed.count("\r") == 2
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
