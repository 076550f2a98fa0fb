"""The contract of `Backend`, for every backend that writes."""

from pathlib import Path

import pytest

from pipeline.storage.backend import Backend
from pipeline.storage.local_disk import LocalDisk
from pipeline.storage.s3 import S3Backend
from tests.memory_s3 import MemoryS3


@pytest.fixture(params=["disk", "s3"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "disk":
        return LocalDisk()
    return S3Backend(MemoryS3())


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if isinstance(request.getfixturevalue("backend"), LocalDisk):
        return str(tmp_path)
    return "bucket/run"


def read(backend: Backend, path: str) -> tuple[bytes, str]:
    opened = backend.open(path, sequential=True)
    with opened.stream as stream:
        return stream.read(), opened.version


def test_versions_of_stat_list_and_open_agree(backend: Backend, folder: str) -> None:
    path = f"{folder}/part"
    assert backend.stat(path) is None
    assert backend.put_if_absent(path, b"data")

    stored = backend.stat(path)
    assert stored is not None
    assert stored.url == backend.canonical(path)
    assert stored.size == 4
    assert backend.list_objects(folder) == [stored]
    assert read(backend, path) == (b"data", stored.version)


def test_version_changes_with_the_object(backend: Backend, folder: str) -> None:
    path = f"{folder}/part"
    backend.overwrite(path, b"old")
    version = read(backend, path)[1]
    assert backend.replace_if(path, b"new", version)
    assert not backend.replace_if(path, b"late", version)
    data, version_after = read(backend, path)
    assert data == b"new"
    assert version_after != version


def test_listing_is_recursive_and_sorted(backend: Backend, folder: str) -> None:
    for name in ("b", "a/deep", "c"):
        backend.put_if_absent(f"{folder}/{name}", b"data")
    urls = [stored.url for stored in backend.list_objects(folder)]
    assert urls == [backend.canonical(f"{folder}/{name}") for name in ("a/deep", "b", "c")]


def test_stat_of_a_folder_is_none(backend: Backend, folder: str) -> None:
    backend.put_if_absent(f"{folder}/data/part", b"data")
    assert backend.stat(f"{folder}/data") is None


def test_no_abandoned_files_after_writes(backend: Backend, folder: str) -> None:
    backend.put_if_absent(f"{folder}/part", b"data")
    backend.overwrite(f"{folder}/part", b"new")
    assert backend.remove_abandoned(folder) == 0
    assert len(backend.list_objects(folder)) == 1
