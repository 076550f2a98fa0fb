"""Lists a folder of weight files, on disk or any fsspec URL, and reads byte ranges in parallel.

Local files are read, not mapped: a file that shrinks meanwhile is an error, not a crash, and a
large read is one pass through memory.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from os import PathLike, fspath
from types import TracebackType

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from actors.protocol.errors import ModelError
from actors.retries import RetryPolicy

WEIGHT_RETRIES = RetryPolicy(retry_window_s=120.0, longest_pause_s=10.0, shortest_pause_share=1.0)
MANIFEST = "manifest.json"  # of the safetensors layout
ALIGNMENT = 64  # bytes; JAX uses host arrays that start so as they are where the devices are CPUs
# A range is fetched in parts of this size, several at a time.
REMOTE_PART_BYTES = 64 * 1024 * 1024
_LOCAL_PART_BYTES = 16 * 1024 * 1024
_PARALLEL_PARTS = 8


class WeightFolder:
    """A folder, and the threads that read from it; a context manager.

    Args:
        url: local path or any fsspec URL.
        retries: of requests to a remote folder.
        remote_part_bytes: bytes of one request; larger ranges are read in several requests.

    Raises:
        ModelError: no file system for such a URL is installed.
    """

    def __init__(
        self,
        url: str | PathLike[str],
        retries: RetryPolicy = WEIGHT_RETRIES,
        remote_part_bytes: int = REMOTE_PART_BYTES,
    ) -> None:
        self._retries = retries
        self.url = str(fspath(url)).rstrip("/") or "/"
        try:
            self._files, root = fsspec.core.url_to_fs(fspath(url))
        except (ImportError, ValueError) as error:
            raise ModelError(
                f"checkpoint {url}: no file system for this kind of URL is installed ({error})"
            ) from error
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._files, LocalFileSystem)
        self._part_bytes = _LOCAL_PART_BYTES if self._local else remote_part_bytes
        threads = _PARALLEL_PARTS
        if self._local:
            threads = min(threads, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="weights")

    def __enter__(self) -> "WeightFolder":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def sizes(self) -> dict[str, int]:
        """Returns {name: bytes} of the files directly in the folder; folders have 0 bytes.

        A link counts as what it leads to: Hugging Face's cache holds a checkpoint as links.

        Raises:
            ModelError: there is no such folder, it cannot be listed, or a link leads nowhere.
        """
        try:
            if self._local:
                return _local_sizes(self._root)
            self._files.invalidate_cache()  # another process, or this one, may have written since
            entries = self._retries.with_retries(lambda: self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            raise ModelError(
                f"checkpoint {self.url}: no such folder; give the folder that holds "
                f"tensor00000_000 or {MANIFEST}"
            ) from None
        except ModelError:
            raise
        # clients of object stores raise classes of their own, which this layer must not import
        except Exception as error:
            raise ModelError(
                f"checkpoint {self.url}: cannot be listed ({_cause(error)})"
            ) from error

        sizes: dict[str, int] = {}
        for entry in entries:
            name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
            is_file = entry["type"] == "file"
            if name:
                sizes[name] = int(entry["size"] or 0) if is_file else 0
        return sizes

    def read(self, name: str, start: int, end: int, align: int = 0) -> np.ndarray:
        """Returns bytes [start, end) of a file, uint8, in memory that nothing else writes to.

        Args:
            name: of a file directly in the folder.
            start: first byte.
            end: byte after the last.
            align: offset within the range that must lie at a multiple of ALIGNMENT in memory.

        Raises:
            ModelError: the file is missing, shorter, or cannot be read.
        """
        memory = np.empty(end - start + ALIGNMENT, np.uint8)
        skip = -(memory.ctypes.data + align) % ALIGNMENT
        buffer = memory[skip : skip + end - start]
        part_bytes = self._part_bytes

        def read_part(part_start: int) -> None:
            part_end = min(part_start + part_bytes, end)
            self._read_part(name, buffer, start, part_start, part_end)

        try:
            for _ in self._threads.map(read_part, range(start, end, part_bytes)):
                continue
        except Exception as error:  # as above
            raise ModelError(f"{self.url}/{name}: cannot be read ({_cause(error)})") from error
        return buffer

    def _read_part(self, name: str, buffer: np.ndarray, origin: int, start: int, end: int) -> None:
        """Reads bytes [start, end) of a file into a buffer that holds the file from `origin` on."""
        target = buffer.data[start - origin : end - origin]
        path = f"{self._root}/{name}"
        if self._local:
            count = _read_local(path, target, start)
        else:
            piece = self._retries.with_retries(
                lambda: self._files.cat_file(path, start=start, end=end)
            )
            count = len(piece)
            if count == end - start:
                target[:] = piece
        if count != end - start:
            raise OSError(f"{count} of {end - start} bytes came at offset {start}")


def _local_sizes(root: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise ModelError(
                    f"{entry.path}: a link to {os.readlink(entry.path)}, which does not exist; "
                    "fetch the file again"
                )
            sizes[entry.name] = entry.stat().st_size if entry.is_file() else 0
    return sizes


def _read_local(path: str, target: memoryview, start: int) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        done = 0
        while done < len(target):
            count = os.preadv(descriptor, [target[done:]], start + done)
            if count == 0:
                break
            done += count
        # read once: 300 GB must not push everything else out of the page cache, and its pages are
        # used again at once
        os.posix_fadvise(descriptor, start, len(target), os.POSIX_FADV_DONTNEED)
        return done
    finally:
        os.close(descriptor)


def _cause(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
