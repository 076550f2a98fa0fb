import bz2
import gzip
import lzma
from io import BytesIO

import pyarrow as pa
import pytest

from pipeline.errors import DatasetError
from pipeline.input.formats.compression import compression_of, decompressed, without_compression

LINES = b"".join(b"line %d\n" % number for number in range(50_000))


def arrow_compressed(data: bytes, codec: str) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, codec) as stream:  # type: ignore[arg-type]
        stream.write(data)
    return out.getvalue().to_pybytes()


COMPRESSED = {
    ".gz": gzip.compress(LINES),
    ".bz2": bz2.compress(LINES),
    ".xz": lzma.compress(LINES),
    ".zst": arrow_compressed(LINES, "zstd"),
    ".lz4": arrow_compressed(LINES, "lz4"),
}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_bytes_are_those_that_were_compressed(suffix: str) -> None:
    with decompressed(BytesIO(COMPRESSED[suffix]), f"a.jsonl{suffix}") as stream:
        assert stream.peek(4)[:4] == b"line"
        assert b"".join(stream) == LINES


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_file_of_several_members_is_read_whole(suffix: str) -> None:
    with decompressed(BytesIO(COMPRESSED[suffix] * 2), f"a{suffix}") as stream:
        assert stream.read() == LINES * 2


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_file_that_is_cut_off_is_named(suffix: str) -> None:
    data = COMPRESSED[suffix][:-20]
    with (
        pytest.raises(DatasetError, match=rf"a\{suffix} is not a readable .* file"),
        decompressed(BytesIO(data), f"a{suffix}") as stream,
    ):
        stream.read()


def test_error_of_the_disk_is_not_blamed_on_the_file() -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with (
        pytest.raises(OSError, match="Input/output error"),
        decompressed(Broken(), "a.gz") as stream,
    ):
        stream.read()


def test_suffix_names_the_compression() -> None:
    assert compression_of("s3://bucket/A.JSONL.GZ") == "gzip"
    assert compression_of("https://host/a.csv.zst?sig=x.gz") == "zstd"
    assert compression_of("a.jsonl") is None
    assert without_compression("A.jsonl.GZ") == "a.jsonl"
    assert without_compression("a.jsonl") == "a.jsonl"
