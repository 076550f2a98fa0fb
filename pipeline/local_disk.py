"""Bytes -> files that appear whole or not at all, and listings, on a local or POSIX-like disk. It knows no URLs.

Write aside in the same folder, fsync, then link (creates, never overwrites) or rename (replaces), then fsync the folder. What a
killed driver leaves behind is a hidden file that no listing of ours shows.
"""

import fcntl
import glob
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def list_files(path: str) -> list[tuple[str, int, int]]:
    """Returns path, size and modification time (ns) of a file, of the files of a folder at any depth, or of a glob; sorted.

    Files that vanish meanwhile (another driver's, written aside) are left out; so is a path that does not exist. Raises OSError.
    """
    if os.path.isdir(path):
        found = list(_walk(path))
    elif os.path.exists(path):
        found = [path]
    else:
        found = glob.glob(path, recursive=True)
    return sorted(listed for name in found if (listed := _listed(name)) is not None)


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                yield entry.path


def _listed(name: str) -> tuple[str, int, int] | None:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return (name, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def overwrite(path: Path, data: bytes) -> None:
    """Writes the file whatever is there. Raises OSError."""
    with _written_aside(path, data) as aside:
        os.replace(aside, path)


def publish(path: Path, data: bytes) -> bool:
    """Creates the file; False when there is one. Folders are made. Raises OSError."""
    if path.exists():
        return False
    with _written_aside(path, data) as aside:
        try:
            os.link(aside, path)  # unlike rename, link fails when the name is taken
        except FileExistsError:
            return False
        _fsync_folder(path.parent)
    return True


def replace(path: Path, data: bytes, version: str) -> bool:
    """Replaces the file if it still has `version` (modification time, ns); False when not. Raises OSError."""
    with _written_aside(path, data) as aside, _locked_folder(path.parent):
        try:
            found = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if str(found) != version:
            return False
        if aside.stat().st_mtime_ns <= found:  # two writes within one tick of the clock must not share a version
            os.utime(aside, ns=(found + 1, found + 1))
        os.replace(aside, path)
        _fsync_folder(path.parent)
    return True


@contextmanager
def _written_aside(path: Path, data: bytes) -> Iterator[Path]:
    """Yields a hidden file next to `path` that holds `data`, safely on disk; removed at the end unless renamed away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex}.aside"
    try:
        with aside.open("xb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the descriptor closes, also by kill -9
        yield
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
