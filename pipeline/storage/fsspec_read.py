"""Any fsspec file system as a backend that can only be read."""

from datetime import datetime
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn, cast

import fsspec

from actors.protocol.plain_text import bare
from pipeline.errors import DatasetError
from pipeline.storage.backend import IrregularFile, OpenedObject, StoredObject
from pipeline.storage.urls import is_chain, scheme_of

GLOB_CHARACTERS = "*?["
COLONS = "\0"  # in place of `::`; no name has it
MODIFIED_NAMES = ("LastModified", "last_modified", "updated", "mtime")  # S3, Azure, GCS, others
# Names of what changes with an object's bytes: on S3 and Azure, GCS, Hugging Face, others.
VERSION_NAMES = ("ETag", "etag", "blob_id", "LastModified")
READ_AHEAD_BYTES = 8 * 2**20
UNKNOWN_PROTOCOL = "Protocol not known"  # of fsspec's message
WRITABLE = (
    "only plain paths, file:// and s3:// can be created without overwriting; write there and copy "
    "the finished run"
)
# The extra of this package that brings the file system of a scheme.
EXTRAS = MappingProxyType(
    {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "hf": "hf"}
)


def filesystem_of(url: str, **options: Any) -> tuple[Any, str]:
    """Returns the fsspec file system of `url` and the path of `url` in it.

    fsspec keeps one file system per protocol and options.

    Raises:
        DatasetError: no file system for the protocol of `url` is installed.
    """
    try:
        if is_chain(url):
            fs, path = fsspec.core.url_to_fs(url, **options)
        else:
            # `url_to_fs` takes every `::` for a chain
            fs, path = fsspec.core.url_to_fs(url.replace("::", COLONS), **options)
            path = path.replace(COLONS, "::")
    except ImportError as error:
        extra = EXTRAS.get(scheme_of(url))
        cure = ""
        if extra is not None:
            cure = f"; run 'make stores', or pip install 'grok-batch[{extra}]'"
        raise DatasetError(
            f"cannot use {bare(url)}: no file system for this kind of URL is installed "
            f"({error}){cure}"
        ) from error
    except ValueError as error:
        reason = bare(error)
        if UNKNOWN_PROTOCOL in reason:
            reason = f"no file system for this kind of URL is installed ({reason})"
        raise DatasetError(f"cannot use {bare(url)}: {reason}") from error
    return fs, path


class FsspecReader:
    """Backend over an fsspec file system; every write raises DatasetError."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def canonical(self, path: str) -> str:
        """Returns the URL with its protocol."""
        return str(self._fs.unstrip_protocol(path)).rstrip("/")

    def list_objects(self, path: str) -> list[StoredObject]:
        """Lists a folder, a glob or a single file; sorted by URL."""
        listed = [self._stored(info) for info in self._infos(path) if _is_object(info)]
        return sorted(listed, key=lambda stored: stored.url)

    def stat(self, path: str) -> StoredObject | None:
        """Returns the object at `path`; None for a folder."""
        try:
            info = self._info(path)
        except FileNotFoundError:
            return None
        if info["type"] != "file":
            return None
        return self._stored(info)

    def list_irregular(self, path: str) -> list[IrregularFile]:
        """Returns nothing: object storage has objects only."""
        return []

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens an object; each read is one range request. `RetryingBackend` reads ahead."""
        stream = self._fs.open(path, "rb", cache_type="none", block_size=READ_AHEAD_BYTES)
        details = getattr(stream, "details", None) or {}
        return OpenedObject(cast(BinaryIO, stream), version_of(details))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Raises DatasetError."""
        self._refuse_to_write(path)

    def replace_if(self, path: str, data: bytes, version: str) -> bool:
        """Raises DatasetError."""
        self._refuse_to_write(path)

    def check_conditional_writes(self, path: str, *, replaces: bool) -> None:
        """Raises DatasetError."""
        self._refuse_to_write(path)

    def overwrite(self, path: str, data: bytes) -> None:
        """Raises DatasetError."""
        self._refuse_to_write(path)

    def remove_abandoned(self, path: str) -> int:
        """Returns 0: object storage has no temporary files."""
        return 0

    def _refuse_to_write(self, path: str) -> NoReturn:
        raise DatasetError(f"cannot write {bare(self.canonical(path))}: {WRITABLE}")

    def _infos(self, path: str) -> list[dict[str, Any]]:
        try:
            info = self._info(path)
        except FileNotFoundError:
            if any(character in path for character in GLOB_CHARACTERS):
                return self._matched_infos(path)
            return []
        if info["type"] == "file":
            return [info]
        return list(self._fs.find(path, detail=True).values())

    def _matched_infos(self, pattern: str) -> list[dict[str, Any]]:
        """Returns what a glob matches; a folder stands for the objects in it."""
        matched: dict[str, dict[str, Any]] = self._fs.glob(pattern, detail=True)
        infos = dict(matched)
        listed_folder = "\0"  # above all names that were found with it
        for name in sorted(matched):
            is_listed = name.startswith(listed_folder)
            if matched[name]["type"] == "directory" and not is_listed:
                infos.update(self._fs.find(name, detail=True))
                listed_folder = f"{name}/"
        return list(infos.values())

    def _info(self, path: str) -> dict[str, Any]:
        info: dict[str, Any] = self._fs.info(path)
        return info

    def _stored(self, info: dict[str, Any]) -> StoredObject:
        url = self.canonical(info["name"])
        return StoredObject(url, int(info["size"]), version_of(info), modified_s(info))


def _is_object(info: dict[str, Any]) -> bool:
    return info["type"] == "file" and not info["name"].endswith("/")


def modified_s(info: dict[str, Any]) -> float | None:
    """Returns when an object was written, in seconds since 1970; None where that is not reported.

    The name of the entry depends on the file system.
    """
    for name in MODIFIED_NAMES:
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
    return None


def version_of(info: dict[str, Any]) -> str:
    """Returns the version in what a file system reports of an object; empty if it reports none."""
    for name in VERSION_NAMES:
        if info.get(name):
            return str(info[name]).strip('"')
    return ""
