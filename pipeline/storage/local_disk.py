"""Bytes -> files that appear whole or not at all, and listings, on a local or POSIX-like disk.

It knows no URLs.

Write aside in the same folder, fsync, then link (creates, never overwrites) or rename (replaces),
then fsync the folder. What a killed driver leaves behind is a hidden file
`.<name>.<kernel>.<random>.aside`, which readers of data sets pass over; the next driver removes it.
A file aside is locked as long as its writer lives, so that a living driver's is never taken for a
dead one's.
"""

import contextlib
import fcntl
import functools
import glob
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASIDE = ".{name}.{kernel}.{random}.aside"
# another machine's file aside: a lock may not be seen from here, so it must be old as well
ABANDONED_S = 900.0


def list_files(path: str) -> list[tuple[str, int, int]]:
    """Returns path, size and modification time (ns) of a file, of the files of a folder at any depth, or of a glob; sorted.

    Files that vanish meanwhile (another driver's, written aside) are left out; so is a path that
    does not exist. Raises OSError.
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


def put_if_absent(path: Path, data: bytes) -> bool:
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
    """Replaces the file if it still has `version` (modification time, ns).

    False when not. Raises OSError.
    """
    with _written_aside(path, data) as aside, _locked_folder(path.parent):
        try:
            found = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if str(found) != version:
            return False
        # two writes within one tick of the clock must not share a version
        if aside.stat().st_mtime_ns <= found:
            os.utime(aside, ns=(found + 1, found + 1))
        os.replace(aside, path)
        _fsync_folder(path.parent)
    return True


def remove_abandoned(folder: Path) -> int:
    """Removes the files aside in `folder` whose writers are dead.

    Returns how many. Raises OSError.
    """
    removed = 0
    for path in sorted(folder.glob(".*.aside")):
        # its writer was done, or another driver was as fast
        with contextlib.suppress(FileNotFoundError):
            if _is_abandoned(path):
                path.unlink()
                removed += 1
    return removed


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock.

    Of a writer under another kernel (machine, boot) also: whether it is long ago.
    """
    if f".{_kernel()}." not in path.name and time.time() - path.stat().st_mtime < ABANDONED_S:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or a disk without locks: then it stays
        return False
    finally:
        os.close(descriptor)
    return True


@functools.cache
def _kernel() -> str:
    """Returns a name of the running kernel: locks are seen by all who have the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:
        return uuid.uuid4().hex  # unknown: nobody has the same


@contextmanager
def _written_aside(path: Path, data: bytes) -> Iterator[Path]:
    """Yields a hidden file next to `path` that holds `data`, safely on disk.

    Removed at the end unless renamed away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, descriptor = _create_locked(path)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
            yield aside
    finally:
        aside.unlink(missing_ok=True)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Creates a file aside and locks it.

    Again, should another driver have removed it before it was locked.
    """
    while True:
        aside = path.parent / ASIDE.format(
            name=path.name, kernel=_kernel(), random=uuid.uuid4().hex
        )
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # a disk without locks: its files are never removed by others either
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return aside, descriptor
        os.close(descriptor)


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # released when the descriptor closes, also by kill -9
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
