"""Conditional writes against an S3 in memory; test_client.py uses a server over HTTP."""

import errno

import botocore.exceptions as aws
import pytest

from pipeline.errors import DatasetError
from pipeline.storage.s3 import S3Backend, S3Config, filesystem
from tests.memory_s3 import MemoryS3


class UnquotedEtags(MemoryS3):
    """A server that compares `If-Match` with the ETag without its quotes."""

    def pipe_file(
        self,
        path: str,
        data: bytes,
        mode: str = "overwrite",
        IfMatch: str | None = None,
        **options: object,
    ) -> None:
        condition = IfMatch
        if IfMatch is not None:
            condition = f'"{IfMatch}"'
        super().pipe_file(path, data, mode, condition, **options)


def version_of(backend: S3Backend, path: str) -> str:
    stored = backend.stat(path)
    assert stored is not None
    return stored.version


def fail_before_put(operation: str, when: str) -> None:
    if (operation, when) == ("put", "before"):
        raise OSError(errno.EBUSY, "Slow down")


def test_put_if_absent_keeps_the_object_that_is_there() -> None:
    store = MemoryS3()
    backend = S3Backend(store)
    assert backend.put_if_absent("bucket/part", b"first")
    assert not backend.put_if_absent("bucket/part", b"second")
    assert store.objects == {"bucket/part": b"first"}


def test_put_if_absent_raises_an_error_without_an_object() -> None:
    with pytest.raises(OSError, match="Slow down"):
        S3Backend(MemoryS3(fail_before_put)).put_if_absent("bucket/part", b"data")


@pytest.mark.parametrize("server", [MemoryS3, UnquotedEtags])
def test_replace_if_accepts_etags_with_and_without_quotes(server: type[MemoryS3]) -> None:
    store = server()
    backend = S3Backend(store)
    backend.overwrite("bucket/part", b"old")
    assert backend.replace_if("bucket/part", b"new", version_of(backend, "bucket/part"))
    assert store.objects == {"bucket/part": b"new"}


def test_replace_if_rejects_an_old_version_and_a_missing_object() -> None:
    store = MemoryS3()
    backend = S3Backend(store)
    backend.overwrite("bucket/part", b"old")
    version = version_of(backend, "bucket/part")
    backend.overwrite("bucket/part", b"newer")
    assert not backend.replace_if("bucket/part", b"late", version)
    assert not backend.replace_if("bucket/missing", b"late", version)
    assert store.objects == {"bucket/part": b"newer"}


def test_replace_if_raises_a_transient_error() -> None:
    store = MemoryS3()
    backend = S3Backend(store)
    backend.overwrite("bucket/part", b"old")
    version = version_of(backend, "bucket/part")
    store.at = fail_before_put
    with pytest.raises(OSError, match="Slow down"):
        backend.replace_if("bucket/part", b"new", version)


def test_empty_listing_checks_that_the_bucket_exists() -> None:
    calls: list[str] = []
    store = MemoryS3(lambda operation, _when: calls.append(operation))
    backend = S3Backend(store)
    assert backend.list_objects("bucket/run") == []
    assert "head_bucket" in calls

    store.objects["bucket/run/part"] = b"data"
    calls.clear()
    assert [stored.url for stored in backend.list_objects("bucket/run")] == ["s3://bucket/run/part"]
    assert "head_bucket" not in calls


def test_filesystem_prefers_the_endpoint_of_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert filesystem("s3://bucket/key", S3Config())[0].endpoint_url == "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    fs, path = filesystem("s3://bucket/key", S3Config(read_timeout_s=7))
    assert (fs.endpoint_url, path) == ("http://127.0.0.1:2", "bucket/key")
    assert fs.config_kwargs["read_timeout"] == 7
    assert fs.retries == 1


class WithoutConditions(MemoryS3):
    """A server that ignores conditions."""

    def pipe_file(
        self,
        path: str,
        data: bytes,
        mode: str = "overwrite",
        IfMatch: str | None = None,
        **options: object,
    ) -> None:
        super().pipe_file(path, data, **options)


class WithoutIfMatch(MemoryS3):
    """A server that honours If-None-Match and ignores If-Match."""

    def pipe_file(
        self,
        path: str,
        data: bytes,
        mode: str = "overwrite",
        IfMatch: str | None = None,
        **options: object,
    ) -> None:
        super().pipe_file(path, data, mode, **options)


class RejectsConditions(MemoryS3):
    """A server that answers to conditions as s3fs reports it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__()
        self.answer = {
            "Error": {"Code": code, "Message": "not supported"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    def pipe_file(
        self,
        path: str,
        data: bytes,
        mode: str = "overwrite",
        IfMatch: str | None = None,
        **options: object,
    ) -> None:
        if mode == "create" or IfMatch is not None:
            error = OSError(errno.EINVAL, "not supported")
            raise error from aws.ClientError(self.answer, "PutObject")
        super().pipe_file(path, data, mode, IfMatch, **options)


def test_store_with_conditions_keeps_the_object() -> None:
    store = MemoryS3()
    backend = S3Backend(store)
    backend.overwrite("bucket/run.json", b"{}")
    backend.check_conditional_writes("bucket/run.json", replaces=True)
    assert store.objects == {"bucket/run.json": b"{}"}


def test_store_that_ignores_conditions_is_refused() -> None:
    for store in (WithoutConditions(), WithoutIfMatch()):
        backend = S3Backend(store)
        backend.overwrite("bucket/run.json", b"{}")
        message = r"s3://bucket/run\.json ignores conditional writes: a PutObject with If-"
        with pytest.raises(DatasetError, match=message):
            backend.check_conditional_writes("bucket/run.json", replaces=True)
        assert store.objects == {"bucket/run.json": b"{}"}
    backend.check_conditional_writes("bucket/run.json", replaces=False)


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "InvalidRequest")]
)
def test_store_that_rejects_conditions_is_refused(status: int, code: str) -> None:
    backend = S3Backend(RejectsConditions(status, code))
    message = rf"does not accept a PutObject with If-None-Match \(status {status}.*when_required"
    with pytest.raises(DatasetError, match=message):
        backend.put_if_absent("bucket/part", b"data")

    backend.overwrite("bucket/part", b"data")
    with pytest.raises(DatasetError, match=message):
        backend.check_conditional_writes("bucket/part", replaces=False)
    with pytest.raises(DatasetError, match="does not accept a PutObject with If-Match"):
        backend.replace_if("bucket/part", b"new", version_of(backend, "bucket/part"))


@pytest.mark.parametrize(
    ("endpoint", "checksums"),
    [
        (None, None),
        ("https://s3.eu-central-1.amazonaws.com", None),
        ("http://minio.example:9000", "when_required"),
    ],
)
def test_checksums_are_sent_to_aws_only(
    endpoint: str | None, checksums: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    fs, _ = filesystem("s3://bucket/part", S3Config())
    assert fs.config_kwargs.get("request_checksum_calculation") == checksums

    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    fs, _ = filesystem("s3://bucket/part", S3Config())
    assert "request_checksum_calculation" not in fs.config_kwargs
