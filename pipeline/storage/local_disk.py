"""A local or POSIX-like disk as a backend: listings, and files that appear as a whole.

A write goes to a temporary file in the same folder and is synced; then it is linked (which creates
and never overwrites) or renamed (which replaces), and the folder is synced. On a disk without hard
links it is renamed under a lock of the folder after a check that the name is free.

A killed writer leaves a hidden file `.<name>.<kernel>.<random>.aside`, which readers of data sets
ignore and the next driver removes. A temporary file is locked while its writer lives, so that it is
never taken for one that a killed writer left.
"""

import contextlib
import errno
import fcntl
import functools
import glob
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DatasetError
from pipeline.storage.backend import IrregularFile, OpenedObject, StoredObject

_LOG = logging.getLogger(__name__)
TEMPORARY_SUFFIX = ".aside"
TEMPORARY_NAME = ".{name}.{kernel}.{random}" + TEMPORARY_SUFFIX
TEMPORARY_PATTERN = f".*{TEMPORARY_SUFFIX}"
# What `link` raises on a disk without hard links (exFAT, SMB, vboxsf, FUSE), by file system.
NO_HARD_LINKS = (
    errno.EPERM,
    errno.EACCES,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.EMLINK,
    errno.EXDEV,
)
# What `fsync` of a folder raises where only files are synced, such as SMB.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
# Locks of another machine may not be visible here, so its temporary file must be old as well.
ABANDONED_S = 900.0


class LocalDisk:
    """Backend over the disk. The version of a file is its modification time in ns."""

    def canonical(self, path: str) -> str:
        """Returns the absolute path."""
        return path.rstrip("/")

    def list_objects(self, path: str) -> list[StoredObject]:
        """Lists a file, the files of a folder at any depth, or a glob; sorted by path.

        Leaves out files that vanish meanwhile, such as temporary files of other drivers.
        """
        listed = []
        for name in _names_at(path):
            stored = _stat_file(name)
            if stored is not None:
                listed.append(stored)
        return listed

    def list_irregular(self, path: str) -> list[IrregularFile]:
        """Returns links that lead nowhere, pipes, sockets and devices at `path`."""
        irregular = []
        for name in _names_at(path):
            reason = _irregularity(name)
            if reason is not None:
                irregular.append(IrregularFile(name, reason))
        return irregular

    def stat(self, path: str) -> StoredObject | None:
        """Returns the regular file at `path`."""
        return _stat_file(path)

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens the file; a later rename over it does not change what is read."""
        stream = open(path, "rb")  # noqa: SIM115 - the caller closes it
        version = os.fstat(stream.fileno()).st_mtime_ns
        return OpenedObject(stream, str(version))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Creates the file, and its folders, unless there is one."""
        target = Path(path)
        if target.exists():
            return False
        with _temporary_file(target, data) as temporary:
            try:
                os.link(temporary, target)  # unlike rename, link fails when the name is taken
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                if not _rename_if_absent(temporary, target):
                    return False
            _sync_folder(target.parent)
        return True

    def replace_if(self, path: str, data: bytes, version: str) -> bool:
        """Replaces the file under a lock of its folder, if it still has `version`."""
        target = Path(path)
        with _temporary_file(target, data) as temporary, _locked_folder(target.parent):
            try:
                modified_ns = target.stat().st_mtime_ns
            except FileNotFoundError:
                return False
            if str(modified_ns) != version:
                return False
            # two writes within one tick of the clock must not share a version
            if temporary.stat().st_mtime_ns <= modified_ns:
                os.utime(temporary, ns=(modified_ns + 1, modified_ns + 1))
            os.replace(temporary, target)
            _sync_folder(target.parent)
        return True

    def check_conditional_writes(self, path: str, *, replaces: bool) -> None:
        """Checks that the folder of `path` can be written, and how files are created there.

        A warning is logged if the disk has no hard links. Raises DatasetError if it has neither
        these nor locks.
        """
        folder = Path(path).parent
        with _temporary_file(Path(path), b"") as temporary:
            if _has_hard_links(temporary):
                return
        with _locked_folder(folder):
            _LOG.warning(
                "warning: the disk of %s has no hard links: files are created by a rename under a "
                "lock of this machine; drivers on several machines need a disk with hard links or "
                "object storage",
                folder,
            )

    def overwrite(self, path: str, data: bytes) -> None:
        """Writes the file, and its folders, whether or not there is one."""
        target = Path(path)
        with _temporary_file(target, data) as temporary:
            os.replace(temporary, target)

    def remove_abandoned(self, path: str) -> int:
        """Removes the temporary files directly in the folder whose writers are dead."""
        removed = 0
        for temporary in sorted(Path(path).glob(TEMPORARY_PATTERN)):
            # gone: its writer has finished, or another driver was faster
            with contextlib.suppress(FileNotFoundError):
                if _is_abandoned(temporary):
                    temporary.unlink()
                    removed += 1
        return removed


def _names_at(path: str) -> list[str]:
    """Returns a file, the names in a folder at any depth, or those that a glob matches, sorted.

    A folder that a glob matches stands for the names in it.
    """
    if os.path.isdir(path):
        return sorted(_files_below(path))
    if os.path.lexists(path):
        return [path]
    names: set[str] = set()
    for name in glob.glob(path, recursive=True):
        if os.path.isdir(name):
            names.update(_files_below(name.rstrip("/")))
        else:
            names.add(name)
    return sorted(names)


def _irregularity(path: str) -> str | None:
    """Returns why a name has no bytes to read; None for a regular file or a name that is gone."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            return f"a link to {os.readlink(path)}, which does not exist"
        return None
    if stat.S_ISREG(status.st_mode):
        return None
    return "not a regular file but a pipe, a socket or a device"


def _files_below(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files_below(entry.path)
            else:
                yield entry.path


def _stat_file(path: str) -> StoredObject | None:
    """Returns a regular file; None for everything else, and for what does not exist."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return StoredObject(path, status.st_size, str(status.st_mtime_ns), status.st_mtime)


def _is_abandoned(temporary: Path) -> bool:
    """Whether no process holds the lock and, of another kernel (machine, boot), it is old."""
    is_of_this_kernel = f".{_kernel()}." in temporary.name
    age_s = time.time() - temporary.stat().st_mtime
    if not is_of_this_kernel and age_s < ABANDONED_S:
        return False
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or a disk without locks: then it stays
        return False
    finally:
        os.close(descriptor)
    return True


@functools.cache
def _kernel() -> str:
    """Returns an identifier of the running kernel, whose processes see each other's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:
        return uuid.uuid4().hex  # unknown: no other process has the same


@contextmanager
def _temporary_file(target: Path, data: bytes) -> Iterator[Path]:
    """Yields a hidden file beside `target` that holds `data`, synced to disk.

    Removed at the end of the block, unless it was renamed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _create_locked(target)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _create_locked(target: Path) -> tuple[Path, int]:
    """Creates a temporary file and locks it; again if another driver removed it before the lock."""
    while True:
        random = uuid.uuid4().hex
        name = TEMPORARY_NAME.format(name=target.name, kernel=_kernel(), random=random)
        temporary = target.parent / name
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # on a disk without locks, others never remove its temporary files either
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def _rename_if_absent(temporary: Path, target: Path) -> bool:
    """Renames the file unless the name is taken; the way of disks without hard links.

    The lock excludes drivers on the same machine only.
    """
    with _locked_folder(target.parent):
        if target.exists():
            return False
        os.rename(temporary, target)
    return True


def _has_hard_links(temporary: Path) -> bool:
    link = temporary.with_name(f"{temporary.name}{TEMPORARY_SUFFIX}")
    try:
        os.link(temporary, link)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return False
    link.unlink()
    return True


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # released when the descriptor closes, also by kill -9
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise DatasetError(
                f"the disk of {folder} has no locks ({error.strerror}): two drivers could "
                "overwrite each other's files there; write to a disk with hard links and locks "
                "(ext4, XFS, NFS) or to object storage"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
