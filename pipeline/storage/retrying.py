"""A remote backend whose calls are retried after transient errors."""

import io
from typing import Any, BinaryIO, cast

from actors.retries import RetryPolicy
from pipeline.storage.backend import Backend, IrregularFile, OpenedObject, StoredObject
from pipeline.storage.fsspec_read import READ_AHEAD_BYTES

# A request takes as long as the transfer of about this many bytes.
SMALL_OBJECT_BYTES = 2**20


class RetryingBackend:
    """Retries every operation of another backend, and every read of an opened object."""

    def __init__(self, backend: Backend, retries: RetryPolicy) -> None:
        self._backend = backend
        self._retries = retries

    def canonical(self, path: str) -> str:
        """See `Backend`; makes no request."""
        return self._backend.canonical(path)

    def list_objects(self, path: str) -> list[StoredObject]:
        """See `Backend`."""
        return self._retries.with_retries(lambda: self._backend.list_objects(path))

    def stat(self, path: str) -> StoredObject | None:
        """See `Backend`."""
        return self._retries.with_retries(lambda: self._backend.stat(path))

    def list_irregular(self, path: str) -> list[IrregularFile]:
        """See `Backend`."""
        return self._retries.with_retries(lambda: self._backend.list_irregular(path))

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens an object. Each read is one range request; `sequential` reads ahead."""
        opened = self._retries.with_retries(
            lambda: self._backend.open(path, sequential=sequential, listed=listed)
        )
        stream: Any = RetriedRanges(opened.stream, self._retries, SMALL_OBJECT_BYTES)
        if sequential:
            stream = io.BufferedReader(stream, READ_AHEAD_BYTES)
        return OpenedObject(cast(BinaryIO, stream), opened.version)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """See `Backend`. False if an attempt whose answer was lost created the object."""
        return self._retries.with_retries(lambda: self._backend.put_if_absent(path, data))

    def replace_if(self, path: str, data: bytes, version: str) -> bool:
        """See `Backend`. False if an attempt whose answer was lost replaced the object."""
        return self._retries.with_retries(lambda: self._backend.replace_if(path, data, version))

    def check_conditional_writes(self, path: str, *, replaces: bool) -> None:
        """See `Backend`."""
        self._retries.with_retries(
            lambda: self._backend.check_conditional_writes(path, replaces=replaces)
        )

    def overwrite(self, path: str, data: bytes) -> None:
        """See `Backend`."""
        self._retries.with_retries(lambda: self._backend.overwrite(path, data))

    def remove_abandoned(self, path: str) -> int:
        """See `Backend`."""
        return self._retries.with_retries(lambda: self._backend.remove_abandoned(path))


class RetriedRanges(io.RawIOBase):
    """An object on object storage, read range by range, each with retries."""

    def __init__(self, source: Any, retries: RetryPolicy, small_bytes: int = 0) -> None:
        """Takes an opened object.

        Args:
            source: seekable, with `size` in bytes; closed with this stream.
            retries: of each request.
            small_bytes: an object of at most this size is read by one request as a whole.
        """
        self._source = source
        self._small_bytes = small_bytes
        self._retries = retries
        self._size = int(source.size)
        self._position = 0
        self._data: bytes | None = None  # of a small object

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position without reading."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, bases[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, or the part of it that the object has bytes for, by one request."""
        unread = max(0, self._size - self._position)
        count = min(len(buffer), unread)
        if count == 0:
            return 0
        if self._size <= self._small_bytes:
            data = self._small_object()[self._position : self._position + count]
        else:
            start = self._position
            data = self._retries.with_retries(lambda: self._range(start, count))
        buffer[:count] = data
        self._position += count
        return count

    def readall(self) -> bytes:
        """Returns all bytes after the position, by one request."""
        unread = max(0, self._size - self._position)
        return self.read(unread) or b""

    def close(self) -> None:
        """Closes the source, too."""
        if not self.closed:
            self._source.close()
        super().close()

    def _small_object(self) -> bytes:
        """Returns all bytes: one request for a small object, however many reads."""
        if self._data is None:
            self._data = self._retries.with_retries(lambda: self._range(0, self._size))
        return self._data

    def _range(self, start: int, count: int) -> bytes:
        self._source.seek(start)
        data: bytes = self._source.read(count)
        if len(data) != count:
            raise ConnectionError(f"received {len(data)} of {count} bytes from position {start}")
        return data
