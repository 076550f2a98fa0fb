"""The private folder of a local Ray, with a process that removes it whatever becomes of the driver.

Ray makes its own folder writable for everybody, so it lies in one of mode 0700.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.cluster import reaper
from jobs.cluster.address import DEFAULT_TEMPORARY_FOLDER, ClusterConfigError, temporary_folders

PREFIX = "grok-batch-"
RAY = "ray"
# Longest path of a socket, and what Ray puts behind its folder:
# /session_2026-11-26_19-14-30_939223_1234567/sockets/plasma_store.1
SOCKET_PATH_BYTES = 107
SOCKET_NAME_BYTES = 66
REAPER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RayFolder:
    """Where a local Ray keeps sockets, logs and spilled objects."""

    path: Path  # for Ray: short enough for its sockets
    folders: tuple[Path, ...]  # to remove; the first one contains the files


@contextlib.contextmanager
def private_folder(environment: Mapping[str, str]) -> Iterator[RayFolder]:
    """Creates the folder; afterwards, also if this process is killed, ends what runs in it.

    It is in RAY_TMPDIR, TMPDIR or /tmp. Where the path would be too long for a socket, Ray gets a
    link in /tmp to it.

    Raises:
        ClusterConfigError: the folder cannot be created.
    """
    folder = _create(environment)
    process = _start_reaper(folder.folders)
    try:
        yield folder
    finally:
        if process.stdin is not None:
            process.stdin.close()
        # The reaper also ends alone.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(REAPER_TIMEOUT_S)


def _create(environment: Mapping[str, str]) -> RayFolder:
    base = temporary_folders(environment)[0]
    folder = _make_private(base)
    ray_folder = folder / RAY
    ray_folder.mkdir()
    if _is_short_enough(ray_folder):
        return RayFolder(ray_folder, (folder,))

    try:
        link_folder = _make_private(Path(DEFAULT_TEMPORARY_FOLDER))
    except ClusterConfigError as error:
        folder_bytes = len(os.fsencode(base))
        raise ClusterConfigError(
            f"the temporary folder {base} is too long for the sockets of a local Ray "
            f"({folder_bytes} bytes), and there can be no link to it: {error}"
        ) from error
    link = link_folder / RAY
    link.symlink_to(ray_folder)
    return RayFolder(link, (folder, link_folder))


def _make_private(base: Path) -> Path:
    """Creates a folder of mode 0700; returns its path without symbolic links."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=base)).resolve()
    except OSError as error:
        raise ClusterConfigError(
            f"a local Ray cannot use the temporary folder {base}: {error.strerror}; set RAY_TMPDIR "
            "to a folder that you may write to"
        ) from error


def _is_short_enough(ray_folder: Path) -> bool:
    return len(os.fsencode(ray_folder)) + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES


def _start_reaper(folders: tuple[Path, ...]) -> "subprocess.Popen[bytes]":
    """Starts the process that cleans up once this one closes the pipe, or ends."""
    command = [sys.executable, "-I", "-S", str(reaper.__file__)]
    return subprocess.Popen(
        [*command, *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
