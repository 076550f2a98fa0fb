"""Folders of weight files, local and remote: listings, and byte ranges read in parallel."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from actors.protocol.errors import ModelError
from actors.weights.weight_files import ALIGNMENT, WeightFolder

DATA = bytes(range(256)) * 4


@pytest.fixture
def remote() -> Iterator[str]:
    """Yields the URL of a folder in memory that holds the file `numbers` and a folder."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/weight-files/numbers", DATA)
    memory.pipe_file("/weight-files/inner/other", b"x")
    yield "memory://weight-files"
    memory.rm("/weight-files", recursive=True)


def test_read_aligns_ranges_in_memory(tmp_path: Path) -> None:
    data = np.arange(100_000, dtype=np.uint8)
    (tmp_path / "file").write_bytes(data.tobytes())
    with WeightFolder(tmp_path) as weights:
        for start, end, align in [(0, 100_000, 0), (17, 99_999, 131), (5, 6, 0)]:
            got = weights.read("file", start, end, align)
            np.testing.assert_array_equal(got, data[start:end])
            assert (got.ctypes.data + align) % ALIGNMENT == 0
        with pytest.raises(
            ModelError, match=r"file: cannot be read \(99990 of 99991 bytes came at offset 10\)"
        ):
            weights.read("file", 10, 100_001)


def test_read_of_a_remote_range_returns_its_bytes(remote: str) -> None:
    with WeightFolder(remote) as weights:
        assert weights.read("numbers", 3, 1000).tobytes() == DATA[3:1000]
        assert weights.read("numbers", 7, 7).tobytes() == b""


def test_read_of_a_remote_range_joins_its_parts(remote: str) -> None:
    with WeightFolder(remote, remote_part_bytes=100) as weights:
        assert weights.read("numbers", 3, 1000).tobytes() == DATA[3:1000]
        assert weights.read("numbers", 0, 200).tobytes() == DATA[:200]


def test_read_beyond_a_remote_file_raises(remote: str) -> None:
    with (
        WeightFolder(remote) as weights,
        pytest.raises(ModelError, match=r"numbers: cannot be read \(4 of 10 bytes came at offset"),
    ):
        weights.read("numbers", len(DATA) - 4, len(DATA) + 6)


def test_read_of_a_large_local_file_joins_its_parts(tmp_path: Path) -> None:
    """A file of two parts and a bit, each read by a thread of its own."""
    numbers = np.arange(33 * 1024 * 1024 // 4, dtype=np.uint32)
    numbers.tofile(tmp_path / "file")
    size = numbers.nbytes
    with WeightFolder(tmp_path) as weights:
        buffer = weights.read("file", 4, size)
    np.testing.assert_array_equal(buffer.view(np.uint32), numbers[1:])


def test_read_of_a_missing_file_raises_with_its_url(tmp_path: Path) -> None:
    with (
        WeightFolder(tmp_path) as weights,
        pytest.raises(ModelError, match=rf"{tmp_path}/nowhere: cannot be read"),
    ):
        weights.read("nowhere", 0, 1)


def test_read_results_do_not_share_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with WeightFolder(tmp_path) as weights:
        first = weights.read("file", 0, 100)
        first[:] = 0
        assert weights.read("file", 0, 100).tobytes() == DATA[:100]


def test_sizes_of_a_remote_folder_list_folders_with_0_bytes(remote: str) -> None:
    with WeightFolder(remote) as weights:
        assert weights.sizes() == {"numbers": 1024, "inner": 0}


def test_sizes_of_a_local_folder_list_folders_with_0_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "other").write_bytes(b"x")
    with WeightFolder(f"{tmp_path}/") as weights:
        assert weights.url == str(tmp_path)
        assert weights.sizes() == {"file": 3, "inner": 0}


def test_sizes_follow_links(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"abc")
    (tmp_path / "blobs").mkdir()
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "file").symlink_to("../blob")
    (folder / "inner").symlink_to("../blobs")
    with WeightFolder(folder) as weights:
        assert weights.sizes() == {"file": 3, "inner": 0}
        (folder / "lost").symlink_to("../blobs/gone")
        message = r"snapshot/lost: a link to \.\./blobs/gone, which does not exist"
        with pytest.raises(ModelError, match=message):
            weights.sizes()


def test_sizes_include_files_that_were_written_since(tmp_path: Path) -> None:
    with WeightFolder(tmp_path) as weights:
        assert weights.sizes() == {}
        (tmp_path / "file").write_bytes(b"abc")
        assert weights.sizes() == {"file": 3}


def test_sizes_of_a_missing_folder_raise_with_advice(tmp_path: Path) -> None:
    with (
        WeightFolder(tmp_path / "nowhere") as weights,
        pytest.raises(ModelError, match="nowhere: no such folder; give the folder that holds"),
    ):
        weights.sizes()


def test_folder_of_an_unknown_kind_of_url_raises() -> None:
    with pytest.raises(ModelError, match="nonsense://x: no file system for this kind of URL"):
        WeightFolder("nonsense://x")
