"""Copies the log files of Ray on this node to standard output, from which Kubernetes keeps them.

    python follow_logs.py RAY_FOLDER

Ray writes its logs, and the standard error of replicas, to files of an emptyDir that ends with the
pod. Each line is printed with the name of its file. Files that appear later are followed too. After
SIGTERM the last lines are printed and the process ends. Standard library only.
"""

import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

PATTERNS = (
    "worker-*.err",
    "worker-*.out",
    "job-driver-*.log",
    "raylet.*",
    "gcs_server.*",
    "monitor.*",
)
LOGS = "session_latest/logs"  # below the folder of Ray
INTERVAL_S = 1.0
READ_BYTES = 4 << 20  # of one file at a time: a pod that starts again finds gigabytes


class FollowedFiles:
    """Positions in all log files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._positions: dict[Path, int] = {}

    def copy_new_lines(self, target: TextIO, *, unfinished: bool = False) -> None:
        """Writes the lines that were appended since the last call.

        Args:
            target: receives `FILE: LINE`.
            unfinished: also write a last line that has no line end yet.
        """
        paths: set[Path] = set()
        for pattern in PATTERNS:
            paths.update(self._folder.glob(pattern))
        for path in sorted(paths):
            self._copy_file(path.resolve(), target, unfinished)
        target.flush()

    def _copy_file(self, path: Path, target: TextIO, unfinished: bool) -> None:
        position = self._positions.get(path, 0)
        try:
            size = path.stat().st_size
            if size < position:
                position = 0  # rotated: the file begins anew
            if size == position:
                return
            with path.open("rb") as file:
                file.seek(position)
                content = file.read(READ_BYTES)
        except FileNotFoundError:
            return  # Ray removes files of old sessions

        end = content.rfind(b"\n") + 1
        if unfinished or (not end and len(content) == READ_BYTES):
            end = len(content)
        lines = content[:end].decode(errors="replace").splitlines()
        target.writelines(f"{path.name}: {line}\n" for line in lines)
        self._positions[path] = position + end


def main(folder: Path, stop: threading.Event) -> int:
    """Follows the files of a folder until `stop` is set."""
    files = FollowedFiles(folder)
    while not stop.wait(INTERVAL_S):
        files.copy_new_lines(sys.stdout)
    files.copy_new_lines(sys.stdout)
    files.copy_new_lines(sys.stdout, unfinished=True)
    return 0


if __name__ == "__main__":
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    sys.exit(main(Path(sys.argv[1], LOGS), stopping))
