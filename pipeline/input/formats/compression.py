"""Compressed text files: gzip, Zstandard, bzip2, LZ4 and xz, recognized by the last suffix."""

import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa

from actors.protocol.plain_text import bare
from actors.retries import is_transient
from pipeline.errors import DatasetError
from pipeline.storage.urls import path_of

BUFFER_BYTES = 2**20
# Suffix → name of the compression, which is Arrow's name of its codec except for xz.
COMPRESSIONS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".lz4": "lz4",
    ".xz": "xz",
}


def compression_of(url: str) -> str | None:
    """Returns the compression of a file by the last suffix of its name; None: not compressed."""
    path = path_of(url).lower()
    for suffix, name in COMPRESSIONS.items():
        if path.endswith(suffix):
            return name
    return None


def without_compression(url: str) -> str:
    """Returns the path of a URL in lower case, without the suffix of a compression."""
    path = path_of(url).lower()
    for suffix in COMPRESSIONS:
        if path.endswith(suffix):
            return path.removesuffix(suffix)
    return path


@contextmanager
def decompressed(stream: BinaryIO, url: str) -> Iterator[io.BufferedReader]:
    """Returns the decompressed bytes of an open file; files of several members are read whole.

    Raises:
        DatasetError: the file is damaged or cut off; raised while it is read.
    """
    compression = compression_of(url)
    if compression is None:
        yield _buffered(stream)
        return
    try:
        if compression == "xz":
            unpacked = lzma.LZMAFile(stream)  # noqa: SIM115 - holds nothing but `stream`
            yield io.BufferedReader(cast(Any, unpacked), BUFFER_BYTES)
        else:
            source = pa.PythonFile(cast(Any, stream), "r")
            compressed = pa.CompressedInputStream(source, cast(Any, compression))
            yield io.BufferedReader(cast(Any, compressed), BUFFER_BYTES)
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError) as error:
        is_of_storage = isinstance(error, OSError) and error.errno is not None
        if is_of_storage or is_transient(error):
            raise
        raise DatasetError(
            f"{bare(url)} is not a readable {compression} file: {error}; write it "
            "again or leave it out"
        ) from error


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(cast(Any, stream), BUFFER_BYTES)
