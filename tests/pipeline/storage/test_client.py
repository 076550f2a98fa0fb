"""The storage client on a real disk and against a real S3 server over HTTP."""

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from pipeline import storage
from pipeline.errors import DatasetError, OutageError
from pipeline.storage import s3
from pipeline.storage.client import OBJECT_LIMIT_BYTES
from tests.s3 import S3Faults


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))


def test_publish_creates_once(root: str) -> None:
    url = storage.join(root, "run", "data", "part-00000.parquet")
    assert storage.put_if_absent(url, b"first")
    assert not storage.put_if_absent(url, b"second")
    assert storage.read(url)[0] == b"first"


def test_one_of_many_publishers_wins(root: str) -> None:
    url = storage.join(root, "contended")
    barrier = Barrier(6)

    def publish(number: int) -> bool:
        barrier.wait()
        return storage.put_if_absent(url, b"%d" % number * 1000)

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(publish, range(6)))
    assert sum(won) == 1
    assert storage.read(url)[0] == b"%d" % won.index(True) * 1000


def test_replace_only_against_the_version_that_was_read(root: str) -> None:
    url = storage.join(root, "part")
    storage.put_if_absent(url, b"old")
    data, version = storage.read(url)
    assert data == b"old"
    assert storage.replace_if(url, b"new", version)
    assert not storage.replace_if(url, b"late", version)
    data, newer = storage.read(url)
    assert data == b"new"
    assert newer != version
    assert storage.stat(url) == storage.StoredObject(storage.canonical(url), 3, newer)


def test_one_of_many_replacers_wins(root: str) -> None:
    url = storage.join(root, "part")
    storage.put_if_absent(url, b"old")
    version = storage.read(url)[1]
    with ThreadPoolExecutor(4) as pool:
        won = list(
            pool.map(lambda number: storage.replace_if(url, b"new %d" % number, version), range(4))
        )
    assert sum(won) == 1
    assert storage.read(url)[0] == b"new %d" % won.index(True)


def test_replace_does_not_create(root: str) -> None:
    url = storage.join(root, "never-there")
    assert not storage.replace_if(url, b"x", "123")
    assert storage.stat(url) is None


def test_overwrite_replaces_the_object(root: str) -> None:
    url = storage.join(root, "report.json")
    storage.overwrite(url, b"one")
    storage.overwrite(url, b"two")
    assert storage.read(url)[0] == b"two"


def test_listing_is_sorted_with_size_and_version(root: str) -> None:
    for name in ("b.parquet", "a/c.parquet", "a.parquet"):
        storage.put_if_absent(storage.join(root, name), name.encode())
    listed = storage.list_objects(root)
    base = storage.canonical(root)
    assert [stored.url for stored in listed] == [
        f"{base}/a.parquet",
        f"{base}/a/c.parquet",
        f"{base}/b.parquet",
    ]
    assert [stored.size for stored in listed] == [9, 11, 9]
    assert [stored.version for stored in listed] == [
        storage.read(stored.url)[1] for stored in listed
    ]
    assert storage.list_objects(storage.join(root, "*.parquet")) == (listed[0], listed[2])
    assert storage.list_objects(storage.join(root, "b.parquet")) == (listed[2],)
    assert storage.list_objects(storage.join(root, "nothing")) == ()


def test_listing_includes_later_writes_of_others(root: str) -> None:
    storage.put_if_absent(storage.join(root, "data", "one"), b"1")
    assert len(storage.list_objects(storage.join(root, "data"))) == 1
    storage.put_if_absent(storage.join(root, "data", "two"), b"2")
    assert len(storage.list_objects(storage.join(root, "data"))) == 2


def test_open_is_seekable(root: str) -> None:
    url = storage.join(root, "large")
    storage.put_if_absent(url, bytes(range(256)) * 1000)
    with storage.open_object(url) as opened:
        opened.seek(256 * 500 + 7)
        assert opened.read(3) == bytes([7, 8, 9])
        opened.seek(-1, os.SEEK_END)
        assert opened.read() == b"\xff"


def test_missing_file_is_named(root: str) -> None:
    url = storage.join(root, "missing.parquet")
    with pytest.raises(DatasetError, match=r"cannot read .*missing\.parquet: it does not exist"):
        storage.read(url)


def test_aborted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match="No space left"):
        storage.put_if_absent(str(tmp_path / "part"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_read_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cannot create .*not-a-folder"):
        storage.put_if_absent(str(tmp_path / "folder" / "x" / "not-a-folder"), b"")


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(DatasetError, match="no file system for this kind of URL"):
        storage.list_objects("nosuch://bucket/key")


def test_only_storage_with_create_only_writes_is_written() -> None:
    with pytest.raises(DatasetError, match="only plain paths, file:// and s3://"):
        storage.put_if_absent("memory://run/part", b"")
    for url in ("http://127.0.0.1:1/run", "gs://bucket/run", "zip://run::s3://bucket/a.zip"):
        with pytest.raises(DatasetError, match="only plain paths, file:// and s3://"):
            storage.check_scheme_is_writable(url)
    for url in ("run", "file:///run", "S3://bucket/run", "s3a://bucket/a::b"):
        storage.check_scheme_is_writable(url)


def test_file_urls_and_plain_paths_are_the_same(tmp_path: Path) -> None:
    assert storage.put_if_absent(f"file://{tmp_path}/x", b"x")
    assert storage.canonical(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.list_objects(f"file://{tmp_path}") == storage.list_objects(f"{tmp_path}/")


@pytest.mark.s3
def test_missing_bucket_is_named(s3_url: str) -> None:
    for call in (storage.list_objects, lambda url: storage.put_if_absent(url, b"")):
        with pytest.raises(DatasetError, match="the bucket does not exist"):
            call("s3://no-such-bucket/key")
    # a server need not tell which, of a single object
    with pytest.raises(DatasetError, match=r"(the bucket|it) does not exist"):
        storage.read("s3://no-such-bucket/key")


@pytest.mark.slow
@pytest.mark.s3
def test_parts_are_one_put(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3-compatible servers ignore the condition on multipart uploads: large parts avoid them."""
    fs, _ = s3.filesystem(s3_url, s3.S3Config())
    calls = []
    original = type(fs)._call_s3

    async def spy(self: object, method: str, *args: object, **kwargs: object) -> object:
        calls.append(method)
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(type(fs), "_call_s3", spy)
    assert storage.put_if_absent(storage.join(s3_url, "large"), bytes(101 * 2**20))
    assert calls == ["put_object"]


@pytest.mark.s3
def test_lost_race_is_detected_by_the_object(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """radosgw answers with EINVAL where others say FileExistsError."""
    url = storage.join(s3_url, "part")
    storage.put_if_absent(url, b"winner")
    fs, _ = s3.filesystem(s3_url, s3.S3Config())

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fs, "pipe_file", refuse)
    assert not storage.put_if_absent(url, b"loser")
    with pytest.raises(DatasetError, match="Invalid argument"):
        storage.put_if_absent(storage.join(s3_url, "other"), b"x")


def test_listing_tolerates_concurrent_changes(tmp_path: Path) -> None:
    """Files that others write and unlink during a listing cause no error and hide no part."""
    for number in range(20):
        storage.put_if_absent(str(tmp_path / f"part-{number}"), b"x")
    done = Event()

    def churn() -> None:
        while not done.is_set():
            storage.overwrite(str(tmp_path / "report.json"), b"x")

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        try:
            for _ in range(100):
                names = {Path(stored.url).name for stored in storage.list_objects(str(tmp_path))}
                assert names >= {f"part-{number}" for number in range(20)}
        finally:
            done.set()
        churning.result()


@pytest.mark.s3
def test_missing_permission_is_named(s3_url: str, s3_faults: S3Faults) -> None:
    for call in (storage.list_objects, storage.read, lambda url: storage.put_if_absent(url, b"")):
        s3_faults.always = "403"
        with pytest.raises(DatasetError, match=r"s3://.*/key: permission denied"):
            call(storage.join(s3_url, "key"))


@pytest.mark.s3
def test_write_with_lost_response_exists_once(s3_url: str, s3_faults: S3Faults) -> None:
    """A retry that meets its own object reports an existing object, with the right bytes."""
    url = storage.join(s3_url, "part")
    s3_faults.next = ["lose the answer"]
    assert not storage.put_if_absent(url, b"mine")
    assert storage.read(url)[0] == b"mine"


def quick_client(retry_window_s: float = 20.0) -> storage.Client:
    """Returns a client that retries as in a run, in a fraction of the time."""
    return storage.Client(
        storage.RetryPolicy(retry_window_s, first_pause_s=0.01),
        s3.S3Config(read_timeout_s=0.5, attempts_per_request=1),
    )


TRANSIENT = ["503", "500", "drop", "reset", "slow"]


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_are_retried_on_every_operation(
    s3_url: str, s3_faults: S3Faults, fault: str
) -> None:
    client = quick_client()
    url = storage.join(s3_url, "data", "part")
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: client.put_if_absent(url, b"0123456789" * 100),
        "list": lambda: [stored.size for stored in client.list_objects(s3_url)],
        "look at": lambda: client.stat(url),
        "read": lambda: client.read(url)[0],
        "replace": lambda: client.replace_if(url, b"newer", client.read(url)[1]),
        "write": lambda: client.overwrite(url, b"newest"),
    }
    for name, call in calls.items():
        s3_faults.next = [fault] * 3
        result = call()
        assert s3_faults.next == [], name
        if name == "create":
            # A slow server may have done it although the client gave up: then our own object counts
            # as somebody else's.
            assert result is True or fault == "slow"
        elif name == "list":
            assert result == [1000]
        elif name == "read":
            assert result == b"0123456789" * 100
    assert client.read(url)[0] == b"newest"


@pytest.mark.slow
@pytest.mark.s3
def test_truncated_bodies_are_read_again(s3_url: str, s3_faults: S3Faults) -> None:
    client = quick_client()
    data = bytes(range(256)) * 4000
    url = storage.join(s3_url, "large.jsonl")
    client.put_if_absent(url, data)
    for sequential in (False, True):
        s3_faults.only = lambda method, path: method == "GET"
        s3_faults.next = ["truncate", "503", "truncate", "reset"]
        with client.open_object(url, sequential=sequential) as opened:
            assert opened.read(1000) == data[:1000]
            assert opened.read() == data[1000:]
        assert s3_faults.next == []


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("fault", ["lose the answer", "slow"])
def test_commit_with_repeatedly_lost_responses_is_one_object(
    s3_url: str, s3_faults: S3Faults, fault: str
) -> None:
    client = quick_client()
    url = storage.join(s3_url, "part")
    s3_faults.only = lambda method, path: method == "PUT"
    s3_faults.next = ["503", fault, fault]
    assert not client.put_if_absent(url, b"mine")
    assert client.read(url)[0] == b"mine"
    s3_faults.next = ["503", fault, fault]
    told = client.replace_if(url, b"newer", client.read(url)[1])
    # radosgw takes two puts, and so another number of faults
    assert not told or "TEST_S3_ENDPOINT_URL" in os.environ
    assert client.read(url)[0] == b"newer"


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("fault", ["503", "reset", "slow"])
def test_permanent_fault_ends_with_one_line(s3_url: str, s3_faults: S3Faults, fault: str) -> None:
    url = storage.join(s3_url, "part")
    storage.put_if_absent(url, b"x")
    s3_faults.always = fault
    client = quick_client(1.0)
    for call in (
        client.list_objects,
        client.read,
        lambda url: client.put_if_absent(url + "2", b"y"),
    ):
        with pytest.raises(
            OutageError,
            match=r"cannot (list|read|create) s3://.*/part.*: the endpoint .*; ?.*run it again",
        ) as told:
            call(url)
        assert len(str(told.value).splitlines()) == 1
    s3_faults.always = None
    assert storage.read(url)[0] == b"x"
    # a slow server may have created it after we had given up
    assert fault == "slow" or storage.stat(url + "2") is None


@pytest.mark.s3
def test_permanent_error_is_not_retried(s3_url: str, s3_faults: S3Faults) -> None:
    s3_faults.always = "403"
    client = storage.RUN_CLIENT
    with pytest.raises(DatasetError, match="permission denied") as told:
        client.put_if_absent(storage.join(s3_url, "part"), b"x")
    assert not isinstance(told.value, OutageError)
    assert len(s3_faults.requests) <= 3


@pytest.mark.slow
@pytest.mark.s3
def test_unreachable_endpoint_is_an_error(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(OutageError, match="the endpoint does not answer"):
            storage.list_objects(s3_url)


def test_object_changed_since_its_listing_is_refused(root: str) -> None:
    url = storage.join(root, "in.parquet")
    storage.overwrite(url, b"one")
    [listed] = storage.list_objects(url)
    with storage.open_object(url, version=listed.version) as opened:
        assert opened.read() == b"one"
    time.sleep(0.01)
    storage.overwrite(url, b"two")
    with (
        pytest.raises(DatasetError, match=r"in\.parquet was listed with version .* it changed"),
        storage.open_object(url, version=listed.version),
    ):
        pass


def test_messages_omit_credentials_of_urls() -> None:
    with pytest.raises(DatasetError) as told:
        storage.put_if_absent("http://user:pa55word@127.0.0.1/part?X-Amz-Signature=abcdef", b"")
    assert "pa55word" not in str(told.value)
    assert "abcdef" not in str(told.value)


class TooLarge(bytes):
    """Claims to be as large as the limit."""

    def __len__(self) -> int:
        return OBJECT_LIMIT_BYTES


def test_object_above_the_limit_of_one_put_is_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "part")
    for write in (storage.put_if_absent, storage.overwrite):
        with pytest.raises(DatasetError, match="use a smaller --shard-rows"):
            write(url, TooLarge())
    with pytest.raises(DatasetError, match="use a smaller --shard-rows"):
        storage.replace_if(url, TooLarge(), "1")
    assert storage.stat(url) is None


@pytest.mark.parametrize("name", ["qa::train.parquet", "a b#c?d%20é.parquet"])
def test_names_with_special_characters_are_read(root: str, name: str) -> None:
    url = storage.join(root, name)
    storage.overwrite(url, b"data")
    (stored,) = storage.list_objects(root)
    assert stored.url.endswith(name)
    assert storage.read(stored.url)[0] == b"data"
    assert storage.read(url)[0] == b"data"


@pytest.mark.s3
def test_scheme_may_be_in_capitals(s3_url: str) -> None:
    url = storage.join(s3_url, "a")
    storage.overwrite(url, b"data")
    in_capitals = url.replace("s3://", "S3://")
    assert storage.read(in_capitals)[0] == b"data"
    assert storage.canonical(in_capitals) == url


@pytest.mark.s3
def test_listed_object_is_opened_by_its_size_and_version(s3_url: str) -> None:
    url = storage.join(s3_url, "in")
    storage.overwrite(url, b"first")
    (listed,) = storage.list_objects(url)
    with storage.open_object(url, version=listed.version, size=listed.size) as stream:
        assert stream.read() == b"first"
    storage.overwrite(url, b"later")
    with (
        pytest.raises(DatasetError, match="it changed since it was listed; start a new run"),
        storage.open_object(url, version=listed.version, size=listed.size) as stream,
    ):
        stream.read()


def test_irregular_files_are_links_that_lead_nowhere_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "good").symlink_to(tmp_path / "file")
    (tmp_path / "folder" / "bad").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    reasons = {file.url: file.reason for file in storage.list_irregular(str(tmp_path))}
    assert reasons == {
        str(tmp_path / "folder" / "bad"): "a link to nowhere, which does not exist",
        str(tmp_path / "pipe"): "not a regular file but a pipe, a socket or a device",
    }
