"""Finds the address of a running Ray cluster: RAY_ADDRESS, or the note that `ray start` leaves.

`ray start` writes the address of its cluster into `ray_current_cluster` in its temporary folder,
which all users of the machine share. Whoever writes that file decides where a driver sends its
token and its code, so only a file of this user or of root counts.
"""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

LOCAL = "local"
AUTO = "auto"
DEFAULT_TEMPORARY_FOLDER = "/tmp"
NOTE = Path("ray", "ray_current_cluster")
NOTE_BYTES = 300  # longer than any host name with its port
ROOT_USER = 0
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)


class ClusterConfigError(ConfigError):
    """The cluster, or the local Ray, cannot be used as configured; nothing was started."""


def configured_address(environment: Mapping[str, str]) -> str | None:
    """Returns RAY_ADDRESS: `local`, `auto` or HOST:PORT; None if it is not set or empty.

    Raises:
        ClusterConfigError: it is a URL, or not an address.
    """
    address = environment.get("RAY_ADDRESS", "").strip()
    if not address:
        return None
    if address in (LOCAL, AUTO):
        return address

    if address.startswith(("http://", "https://")):
        raise ClusterConfigError(
            f"RAY_ADDRESS={address} is the URL of a dashboard, which `ray job submit` and "
            "jobs/submit.py use; expected HOST:PORT of the cluster's head, e.g. 10.0.0.1:6379; "
            "submit the job through that URL, or unset RAY_ADDRESS"
        )
    if "://" in address:
        raise ClusterConfigError(
            f"RAY_ADDRESS={address}: a driver does not run through Ray Client; expected HOST:PORT "
            "of the cluster's head, e.g. 10.0.0.1:6379; run the job on the cluster with "
            "`ray job submit` or jobs/submit.py"
        )
    if not is_host_and_port(address):
        raise ClusterConfigError(
            f"RAY_ADDRESS={address} is not an address; expected HOST:PORT of the cluster's head, "
            "e.g. 10.0.0.1:6379, `auto` or `local`"
        )
    return address


def is_host_and_port(address: str) -> bool:
    """Returns whether an address has the form HOST:PORT."""
    return _HOST_AND_PORT.fullmatch(address) is not None


def announced_address(
    environment: Mapping[str, str], log: RunLog, owners: frozenset[int] | None = None
) -> str | None:
    """Returns the address that the last `ray start` of this user or of root wrote; None without.

    Logs a note that is not used because of its owner or mode.

    Args:
        environment: variables that name temporary folders.
        log: receives why a note is not used.
        owners: user ids whose note counts; None: this user and root.
    """
    if owners is None:
        owners = frozenset({ROOT_USER, os.geteuid()})
    for folder in temporary_folders(environment):
        note = folder / NOTE
        try:
            address = _read_note(note, owners)
        except FileNotFoundError:
            continue
        except (_UntrustedNoteError, OSError) as error:
            log.event(
                "announcement_ignored",
                f"the Ray cluster that {note} announces is not used: {error}; set "
                "RAY_ADDRESS=HOST:PORT to use that cluster",
                level="warning",
                path=str(note),
            )
            continue
        return address
    return None


def temporary_folders(environment: Mapping[str, str]) -> list[Path]:
    """Returns the folders in which `ray start` may have left its note, the most specific first."""
    ray_folder = environment.get("RAY_TMPDIR")
    if ray_folder:
        return [Path(ray_folder)]

    folders = [Path(DEFAULT_TEMPORARY_FOLDER)]
    user_folder = environment.get("TMPDIR")
    if user_folder and Path(user_folder) != folders[0]:
        folders.insert(0, Path(user_folder))
    return folders


class _UntrustedNoteError(Exception):
    """Another user may have written the note."""


def _read_note(note: Path, owners: frozenset[int]) -> str:
    """Returns the address in a note that only one of its owners can have written.

    Ray makes its folder writable for everybody. There, another user can put a file of theirs in
    place of the note, but cannot make it a file of its owner.

    Raises:
        FileNotFoundError: there is no note.
        _UntrustedNoteError: another user may have written it, or it holds no address.
        OSError: it cannot be read.
    """
    _check_owner("its folder", note.parent.stat(), owners)

    # Without waiting for a writer if it is a FIFO; a symbolic link is an error.
    descriptor = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UntrustedNoteError("it is not a regular file")
        _check_owner("it", status, owners)
        if status.st_mode & WRITABLE_BY_OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise _UntrustedNoteError(f"other users may write to it (mode {mode:04o})")
        content = file.read(NOTE_BYTES)

    address = content.decode(errors="replace").strip()
    if not is_host_and_port(address):
        raise _UntrustedNoteError("it does not hold an address of the form HOST:PORT")
    return address


def _check_owner(subject: str, status: os.stat_result, owners: frozenset[int]) -> None:
    if status.st_uid not in owners:
        raise _UntrustedNoteError(f"{subject} belongs to another user (uid {status.st_uid})")
