"""Objects by URL: listings, reads, and writes that appear as a whole or not at all.

Any fsspec URL can be read; plain paths, `file://` and `s3://` can be written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from actors.protocol.plain_text import bare
from actors.retries import RetryPolicy
from pipeline.errors import DatasetError
from pipeline.storage import s3
from pipeline.storage.backend import Backend, IrregularFile, StoredObject
from pipeline.storage.errors import explained
from pipeline.storage.fsspec_read import WRITABLE, FsspecReader, filesystem_of
from pipeline.storage.http_read import HttpReader
from pipeline.storage.local_disk import LocalDisk
from pipeline.storage.retrying import RetryingBackend
from pipeline.storage.urls import (
    HTTP_SCHEMES,
    LOCAL_SCHEMES,
    S3_SCHEMES,
    scheme_of,
    with_lower_scheme,
)

BEFORE_RUN = RetryPolicy(retry_window_s=10.0)  # a wrong endpoint is reported soon
DURING_RUN = RetryPolicy(retry_window_s=300.0)  # replicas are up and their work is not to be lost
OBJECT_LIMIT_BYTES = s3.SINGLE_PUT_BYTES  # exclusive; the largest object of one PutObject


@dataclass(frozen=True, slots=True)
class Client:
    """Reads and writes objects by URL.

    Calls to object storage are retried after transient errors as `retries` sets. Methods raise
    DatasetError for what a retry does not change, and OutageError when the retry window ends.
    """

    retries: RetryPolicy = BEFORE_RUN
    s3_config: s3.S3Config = field(default_factory=s3.S3Config)

    def check_scheme_is_writable(self, url: str) -> None:
        """Checks, without a request, that objects can be created at URLs of this kind.

        Raises:
            DatasetError: they can only be read.
        """
        if scheme_of(url) not in (*LOCAL_SCHEMES, *S3_SCHEMES):
            raise DatasetError(f"cannot write {bare(url)}: {WRITABLE}")

    def canonical(self, url: str) -> str:
        """Returns `url` as listings spell it, without a slash at the end.

        An absolute path on disk, `s3://bucket/key` on object storage.
        """
        backend, path = self._backend(url)
        return backend.canonical(path)

    def list_objects(self, url: str) -> tuple[StoredObject, ...]:
        """Returns the objects of a folder (at any depth), a glob or a single file, sorted by URL.

        Empty when nothing matches; a folder on disk that does not exist counts as empty.

        Raises:
            DatasetError: the bucket does not exist, or no permission.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "list"):
            backend, path = self._backend(url)
            return tuple(backend.list_objects(path))

    def list_irregular(self, url: str) -> tuple[IrregularFile, ...]:
        """Returns what `list_objects` leaves out: links that lead nowhere, pipes and devices.

        Raises:
            DatasetError: no permission.
        """
        with explained(url, "list"):
            backend, path = self._backend(url)
            return tuple(backend.list_irregular(path))

    def stat(self, url: str) -> StoredObject | None:
        """Returns size and version of the object at `url`, or None if there is none.

        Raises:
            DatasetError: no permission.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "check"):
            backend, path = self._backend(url)
            return backend.stat(path)

    @contextmanager
    def open_object(
        self,
        url: str,
        *,
        sequential: bool = False,
        version: str = "",
        size: int | None = None,
    ) -> Iterator[BinaryIO]:
        """Opens the object for reading; the stream is seekable.

        On object storage each read is one range request, against the ETag that the object had when
        it was opened: a file that changes meanwhile is an error.

        Args:
            url: of the object.
            sequential: the object will be read from beginning to end: read ahead.
            version: expected, as listed; empty: any.
            size: of that version, as listed, in bytes. With both, no request is made to find them.

        Raises:
            DatasetError: the object is missing, may not be read, or has another version.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "read"):
            backend, path = self._backend(url)
            listed = None
            if version and size is not None:
                listed = StoredObject(url, size, version)
            opened = backend.open(path, sequential=sequential, listed=listed)
            with opened.stream:
                _check_version(url, version, opened.version)
                yield opened.stream

    def read(self, url: str) -> tuple[bytes, str]:
        """Returns an object's bytes, and the version that these bytes are of.

        Raises:
            DatasetError: the object is missing or may not be read.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "read"):
            backend, path = self._backend(url)
            opened = backend.open(path, sequential=False)
            with opened.stream:
                return opened.stream.read(), opened.version

    def put_if_absent(self, url: str, data: bytes) -> bool:
        """Creates the object at `url` with all of `data`, if there is none.

        Returns:
            True: this call created it. False: there is an object, of another writer or of an
            earlier attempt of this call whose answer was lost; read it to tell them apart.

        Raises:
            DatasetError: it could not be written, and there is no object at `url` now.
            OutageError: the same, because the endpoint does not answer.
        """
        with explained(url, "create"):
            backend, path = self._backend(url)
            _check_size(url, data)
            return backend.put_if_absent(path, data)

    def replace_if(self, url: str, data: bytes, version: str) -> bool:
        """Replaces the object at `url` by `data`, if it still has the `version` that was read.

        Returns:
            True: replaced. False: it is gone or has another version, perhaps by an earlier attempt
            of this call whose answer was lost.

        Raises:
            DatasetError: it could not be written, and the object still has `version`.
            OutageError: the same, because the endpoint does not answer.
        """
        with explained(url, "replace"):
            backend, path = self._backend(url)
            _check_size(url, data)
            return backend.replace_if(path, data, version)

    def check_conditional_writes(self, url: str, *, replaces: bool = False) -> None:
        """Checks that the store keeps an object against `put_if_absent` and `replace_if`.

        Two drivers on one folder rely on it. A store that ignores the conditions overwrites without
        an error.

        Args:
            url: of an object that is there; it is written to itself.
            replaces: whether `replace_if` will be used, too.

        Raises:
            DatasetError: the store ignores or rejects conditions, or no permission.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "write"):
            backend, path = self._backend(url)
            backend.check_conditional_writes(path, replaces=replaces)

    def overwrite(self, url: str, data: bytes) -> None:
        """Writes `data` at `url` whether or not there is an object.

        For reports, which nothing resumes from. Readers see the old bytes or the new ones, never a
        part.

        Raises:
            DatasetError: it could not be written.
            OutageError: the endpoint does not answer.
        """
        with explained(url, "write"):
            backend, path = self._backend(url)
            _check_size(url, data)
            backend.overwrite(path, data)

    def remove_abandoned(self, url: str) -> int:
        """Removes temporary files of killed drivers from the folder `url`, on disk only.

        Returns:
            How many files were removed.

        Raises:
            DatasetError: no permission.
        """
        with explained(url, "clean"):
            backend, path = self._backend(url)
            return backend.remove_abandoned(path)

    def _backend(self, url: str) -> tuple[Backend, str]:
        """Returns the backend for `url`, and the path of `url` in it."""
        scheme = scheme_of(url)
        url = with_lower_scheme(url)
        if scheme in LOCAL_SCHEMES:
            _, path = filesystem_of(url)
            return LocalDisk(), path
        remote: Backend
        if scheme in S3_SCHEMES:
            fs, path = s3.filesystem(url, self.s3_config)
            remote = s3.S3Backend(fs)
        else:
            fs, path = filesystem_of(url)
            reader = HttpReader if scheme in HTTP_SCHEMES else FsspecReader
            remote = reader(fs)
        return RetryingBackend(remote, self.retries), path


def join(folder: str, *names: str) -> str:
    """Returns the URL of `names` below `folder`."""
    return "/".join([folder.rstrip("/"), *names])


def _check_version(url: str, expected: str, version: str) -> None:
    if expected and version and expected != version:
        raise DatasetError(
            f"{bare(url)} was listed with version {expected} and has {version} now: "
            "it changed; start a new run"
        )


def _check_size(url: str, data: bytes) -> None:
    if len(data) >= OBJECT_LIMIT_BYTES:
        raise DatasetError(
            f"cannot write {bare(url)}: it has {len(data)} bytes, expected fewer "
            f"than {OBJECT_LIMIT_BYTES}, the limit of one put; use a smaller --shard-rows"
        )
