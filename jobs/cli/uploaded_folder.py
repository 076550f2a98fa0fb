"""Recognizes the folder that Ray unpacks for a submitted job and deletes some time after it."""

import os
from collections.abc import Iterable
from pathlib import Path

from jobs.cli.flag_checks import flag_name
from pipeline.errors import ConfigError

# Ray: SESSION/runtime_resources/working_dir_files/_ray_pkg_DIGEST is the working folder of a job.
RAY_FOLDERS = ("runtime_resources", "working_dir_files")
FILE_SCHEMES = ("file://", "local://")


def uploaded_folder(path: Path) -> Path | None:
    """Returns the unpacked `--working-dir` of a Ray job that contains a path; None if none does."""
    for folder in (path, *path.parents):
        names = (folder.parent.parent.name, folder.parent.name)
        if names == RAY_FOLDERS:
            return folder
    return None


def check_output_is_kept(config: object, names: Iterable[str]) -> None:
    """Checks that flags do not name a place that Ray deletes after the job.

    Args:
        config: the configuration of a command.
        names: fields of `config` with the paths or URLs that the command writes to, or None.

    Raises:
        ConfigError: a path is below the folder that Ray has unpacked for this job.
    """
    for name in names:
        url = getattr(config, name)
        if not url:
            continue
        path = _local_path(url)
        if path is None:
            continue
        folder = uploaded_folder(path)
        if folder is not None:
            raise ConfigError(
                f"{flag_name(name)} {url} is below {folder}, which Ray unpacked for this job and "
                "deletes after it; give a URL, or an absolute path that is kept on the head's "
                "machine"
            )


def _local_path(url: str) -> Path | None:
    """Returns the path of a file or folder on this machine, without symbolic links."""
    for scheme in FILE_SCHEMES:
        url = url.removeprefix(scheme)
    if "://" in url or "::" in url:
        return None
    return Path(os.path.realpath(url))
