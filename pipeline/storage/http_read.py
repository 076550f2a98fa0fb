"""Files on HTTP servers as a backend that can only be read, also of servers without ranges."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline.storage.backend import OpenedObject, StoredObject
from pipeline.storage.fsspec_read import READ_AHEAD_BYTES, FsspecReader, version_of

# Status codes.
FORBIDDEN = (401, 403)
ABSENT = (404, 410)


class HttpReader(FsspecReader):
    """Backend over fsspec's HTTP client."""

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens a file; each read is one range request where the server has ranges."""
        info = self._info(path)
        size = info.get("size")
        source = HttpFile(self._fs, path, size)
        if not size or not info.get("partial", True):
            source.download()
        return OpenedObject(cast(BinaryIO, source), version_of(info))

    def _info(self, path: str) -> dict[str, Any]:
        with _causes_raised():
            return super()._info(path)


class HttpFile(io.RawIOBase):
    """A file on an HTTP server; downloaded as a whole if the server does not send ranges."""

    def __init__(self, fs: Any, url: str, size: int | None) -> None:
        """`size` in bytes; None: unknown until `download`."""
        self.size = size
        self._fs = fs
        self._url = url
        self._position = 0
        self._ranges: Any = None
        self._copy: BinaryIO | None = None
        if size:
            self._ranges = fs.open(
                url, "rb", size=size, cache_type="none", block_size=READ_AHEAD_BYTES
            )

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position to `offset` from the beginning."""
        assert whence == io.SEEK_SET
        self._position = offset
        return offset

    def read(self, count: int = -1) -> bytes:
        """Returns `count` bytes from the position, or fewer at the end."""
        if self._copy is None:
            try:
                return self._read(self._ranges, count)
            except ValueError:  # fsspec's error for an answer that is not the range
                self.download()
        return self._read(self._copy, count)

    def download(self) -> None:
        """Copies the file to a temporary file without a name, from which it is read then."""
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this file
        with _causes_raised():
            self._fs.get_file(self._url, copy)
        self.size = copy.seek(0, io.SEEK_END)
        self._copy = cast(BinaryIO, copy)

    def close(self) -> None:
        """Closes the connection and removes the copy."""
        if self._ranges is not None:
            self._ranges.close()
        if self._copy is not None:
            self._copy.close()
        super().close()

    def _read(self, stream: Any, count: int) -> bytes:
        stream.seek(self._position)
        data: bytes = stream.read(count)
        self._position += len(data)
        return data


@contextmanager
def _causes_raised() -> Iterator[None]:
    """Raises the cause of a FileNotFoundError that does not mean that the file is not there.

    fsspec's HTTP client raises FileNotFoundError whatever failed: a refused connection as well as
    status 403 or 500.
    """
    try:
        yield
    except FileNotFoundError as error:
        # Imported here because it takes a fifth of a second; only fsspec's HTTP client needs it.
        import aiohttp

        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientResponseError):
            if cause.status in FORBIDDEN:
                raise PermissionError(f"status {cause.status}: {cause.message}") from error
            if cause.status not in ABSENT:
                raise cause from None
        elif isinstance(cause, aiohttp.ClientError | TimeoutError):
            raise cause from None
        raise
