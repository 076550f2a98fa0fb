import sys
import uuid
from collections.abc import Callable

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import DatasetError
from pipeline.storage.fsspec_read import FsspecReader, filesystem_of, version_of


@pytest.fixture
def folder() -> str:
    """A folder of its own in fsspec's file system in memory, which is one per process."""
    path = f"/{uuid.uuid4().hex}"
    fs = MemoryFileSystem()
    fs.pipe_file(f"{path}/b.parquet", b"bb")
    fs.pipe_file(f"{path}/a.jsonl", b"a")
    fs.pipe_file(f"{path}/deep/c.parquet", b"ccc")
    return path


READER = FsspecReader(MemoryFileSystem())


def names(path: str, folder: str) -> list[str]:
    prefix = f"memory://{folder}/"
    return [stored.url.removeprefix(prefix) for stored in READER.list_objects(path)]


def test_listing_of_a_folder_is_sorted_and_recursive(folder: str) -> None:
    assert names(folder, folder) == ["a.jsonl", "b.parquet", "deep/c.parquet"]


def test_listing_follows_globs_and_single_files(folder: str) -> None:
    assert names(f"{folder}/*.parquet", folder) == ["b.parquet"]
    assert names(f"{folder}/a.jsonl", folder) == ["a.jsonl"]
    assert names(f"{folder}/missing", folder) == []


def test_listing_takes_a_glob_that_exists_for_a_file(folder: str) -> None:
    MemoryFileSystem().pipe_file(f"{folder}/x[1].parquet", b"x")
    assert names(f"{folder}/x[1].parquet", folder) == ["x[1].parquet"]


def test_stat_is_none_for_folders_and_missing_objects(folder: str) -> None:
    stored = READER.stat(f"{folder}/b.parquet")
    assert stored is not None
    assert (stored.url, stored.size) == (f"memory://{folder}/b.parquet", 2)
    assert READER.stat(folder) is None
    assert READER.stat(f"{folder}/missing") is None


def test_open_reads_at_any_position(folder: str) -> None:
    opened = READER.open(f"{folder}/deep/c.parquet", sequential=False)
    with opened.stream as stream:
        stream.seek(1)
        assert stream.read() == b"cc"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: READER.put_if_absent(path, b"new"),
        lambda path: READER.replace_if(path, b"new", ""),
        lambda path: READER.overwrite(path, b"new"),
    ],
    ids=["put_if_absent", "replace_if", "overwrite"],
)
def test_writes_are_refused(folder: str, write: Callable[[str], object]) -> None:
    with pytest.raises(DatasetError, match=r"cannot write memory://.*b\.parquet: only plain paths"):
        write(f"{folder}/b.parquet")
    assert MemoryFileSystem().cat_file(f"{folder}/b.parquet") == b"bb"


def test_unknown_protocol_is_reported_without_credentials() -> None:
    with pytest.raises(DatasetError, match="no file system for this kind of URL") as raised:
        filesystem_of("nowhere://user:secret@host/data")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc"', "LastModified": "monday"}, "abc"),
        ({"etag": "abc"}, "abc"),
        ({"ETag": "", "LastModified": "monday"}, "monday"),
        ({"blob_id": "abc", "last_commit": None}, "abc"),
        ({}, ""),
    ],
)
def test_version_is_the_etag_or_the_modification_time(info: dict[str, str], version: str) -> None:
    assert version_of(info) == version


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("gs://bucket/a.parquet", "gcsfs", "gcs"),
        ("az://container/a.parquet", "adlfs", "azure"),
        ("abfs://container@account/a.parquet", "adlfs", "azure"),
        ("hf://datasets/owner/name", "huggingface_hub", "hf"),
    ],
)
def test_missing_extra_is_named(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    with pytest.raises(DatasetError, match=rf"make stores.*grok-batch\[{extra}\]"):
        filesystem_of(url)


def test_unknown_protocol_is_a_sentence() -> None:
    with pytest.raises(DatasetError, match=r"cannot use nosuch://a: no file system .*nosuch"):
        filesystem_of("nosuch://a")
