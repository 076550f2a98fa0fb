"""Ends what is left of a local Ray once its driver has ended, and removes its folders.

    python -I reaper.py RAY_FOLDER [FOLDER …]

Ray's servers end with a driver that is killed. The agents that they started do not: each tries for
60 to 90 s to report the end to a server that is gone. So this program runs beside the driver. It
waits for the end of its standard input, a pipe whose other end only the driver holds, kills the
processes that write to a file below RAY_FOLDER, and removes all folders. It uses the standard
library only, so that it starts quickly and stays small.
"""

import contextlib
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PAUSE_S = 0.02
ROUNDS = 500  # a process that outlives this many kills hangs in the kernel


def ray_processes(folder: Path, driver: int, proc: Path = Path("/proc")) -> Iterator[int]:
    """Yields the ids of the processes that have a file below a folder open for writing.

    Each process that Ray starts inherits the log of its server. Standard output does not help: an
    agent replaces its own by a pipe. Nor does the command line, which agents and workers replace.

    Args:
        folder: without symbolic links.
        driver: process that started Ray; it writes a log there too.
        proc: folder of processes; without one, as on macOS, there are none.
    """
    if not proc.is_dir():
        return
    for process in proc.iterdir():
        if not process.name.isdigit() or int(process.name) in (os.getpid(), driver):
            continue
        # The process may have ended, or belong to another user.
        with contextlib.suppress(OSError):
            if _writes_below(process / "fd", folder):
                yield int(process.name)


def _writes_below(descriptors: Path, folder: Path) -> bool:
    """Returns whether one of a process's file descriptors writes to a file below a folder."""
    for descriptor in descriptors.iterdir():
        # The process may have closed it.
        with contextlib.suppress(OSError):
            is_for_writing = descriptor.lstat().st_mode & stat.S_IWUSR
            if is_for_writing and descriptor.readlink().is_relative_to(folder):
                return True
    return False


def kill_processes(folder: Path, driver: int) -> None:
    """Kills the processes of a folder, also those that they start meanwhile."""
    for _ in range(ROUNDS):
        pids = list(ray_processes(folder, driver))
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)


def main(folders: Sequence[str]) -> None:
    """Waits for the end of standard input, then cleans up."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    driver = os.getppid()
    sys.stdin.buffer.read()

    kill_processes(Path(folders[0]), driver)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
