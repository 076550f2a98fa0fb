"""S3 and servers that speak its protocol, as a backend with conditional writes.

An endpoint other than AWS is named by the usual environment variables (AWS_ENDPOINT_URL or
AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID …).

An object is created by one PutObject with `If-None-Match: *` and replaced by one with `If-Match`.
It is never copied into place: on object storage a rename copies and deletes, and is seen half-way.
Stores that reject or ignore these conditions are refused before a run starts.
"""

import errno
import os
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from actors.protocol.plain_text import bare
from actors.retries import is_transient
from pipeline.errors import DatasetError
from pipeline.storage.backend import OpenedObject, StoredObject
from pipeline.storage.errors import client_errors
from pipeline.storage.fsspec_read import READ_AHEAD_BYTES, FsspecReader, filesystem_of
from pipeline.storage.redaction import redact_credentials

# Above every allowed size: s3fs then sends one PutObject. Not every server honours the condition
# on multipart uploads.
SINGLE_PUT_BYTES = 5 * 2**30

CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"  # environment variable of the client
AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
ABSENT_ETAG = '"00000000000000000000000000000000"'  # of no object
# codes of the answer to a header that a store does not support
REJECTED_HEADER_CODES = ("InvalidArgument", "InvalidRequest", "NotImplemented")


@dataclass(frozen=True, slots=True)
class S3Config:
    """Settings of the S3 client."""

    connect_timeout_s: float = 5
    read_timeout_s: float = 30
    attempts_per_request: int = 2  # within the client; all further retries are `RetryPolicy`'s
    connections: int = 32


def filesystem(url: str, config: S3Config) -> tuple[Any, str]:
    """Returns s3fs for `url`, and bucket and key.

    Raises:
        DatasetError: s3fs is not installed.
    """
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    client_config = {
        "connect_timeout": config.connect_timeout_s,
        "read_timeout": config.read_timeout_s,
        "retries": {"mode": "standard", "max_attempts": config.attempts_per_request},
        "max_pool_connections": config.connections,
    }
    if not _is_aws(endpoint_url) and CHECKSUMS not in os.environ:
        # Several other stores refuse the client's x-amz-checksum-* headers. Bodies stay protected,
        # by TLS or by the digest that is part of the signature.
        client_config["request_checksum_calculation"] = "when_required"
    fs, path = filesystem_of(
        url,
        endpoint_url=endpoint_url,
        use_listings_cache=False,  # other drivers write too
        config_kwargs=client_config,
    )
    fs.retries = 1  # of s3fs itself, without a limit in time
    return fs, path


def _is_aws(endpoint_url: str | None) -> bool:
    if endpoint_url is None:
        return True
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith(AWS_DOMAINS)


class S3Backend(FsspecReader):
    """Backend over s3fs. Reads of an opened object are against the ETag it was opened with."""

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens an object; of a listed one, size and ETag are not requested again."""
        if listed is None:
            return super().open(path, sequential=sequential)
        etag = f'"{listed.version}"'
        stream = self._fs.open(
            path, "rb", size=listed.size, cache_type="none", block_size=READ_AHEAD_BYTES
        )
        stream.details = {"name": path, "size": listed.size, "ETag": etag, "type": "file"}
        stream.read_kw = {**stream.read_kw, "IfMatch": etag}
        return OpenedObject(cast(BinaryIO, stream), listed.version)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Creates an object by one conditional PutObject."""
        try:
            self._fs.pipe_file(path, data, mode="create", chunksize=SINGLE_PUT_BYTES)
        except client_errors() as error:
            # Servers report a condition that does not hold by different errors (FileExistsError,
            # OSError 22 …). If the object is there, the race is lost.
            if self.stat(path) is None:
                self._raise_if_rejected(path, "If-None-Match", error)
                raise
            return False
        return True

    def replace_if(self, path: str, data: bytes, version: str) -> bool:
        """Replaces an object by one conditional PutObject.

        The ETag is quoted, as HTTP specifies; a server that takes the quoted ETag for another one
        gets it without quotes.
        """
        for condition in (f'"{version}"', version):
            try:
                self._fs.pipe_file(path, data, chunksize=SINGLE_PUT_BYTES, IfMatch=condition)
            except client_errors() as error:
                stored = self.stat(path)
                if stored is None or stored.version != version:
                    return False
                if is_transient(error):
                    raise
                if condition == version:
                    self._raise_if_rejected(path, "If-Match", error)
                    raise
            else:
                return True
        return False

    def overwrite(self, path: str, data: bytes) -> None:
        """Writes an object by one PutObject."""
        self._fs.pipe_file(path, data, chunksize=SINGLE_PUT_BYTES)

    def check_conditional_writes(self, path: str, *, replaces: bool) -> None:
        """Writes the object to itself under conditions that do not hold; both writes must fail.

        A store that ignores them writes the bytes that are there already.
        """
        opened = self.open(path, sequential=False)
        with opened.stream:
            data = opened.stream.read()
        self._check_rejected_write(path, data, "If-None-Match", mode="create")
        if replaces:
            self._check_rejected_write(path, data, "If-Match", IfMatch=ABSENT_ETAG)

    def _check_rejected_write(self, path: str, data: bytes, header: str, **condition: str) -> None:
        try:
            self._fs.pipe_file(path, data, chunksize=SINGLE_PUT_BYTES, **condition)
        except client_errors() as error:
            if is_transient(error) or isinstance(error, PermissionError):
                raise
            self._raise_if_rejected(path, header, error)
            return
        raise DatasetError(
            f"the store of {self._shown(path)} ignores conditional writes: a PutObject with "
            f"{header} replaced an object that it must keep, so two drivers could overwrite each "
            f"other's files; write to a store that honours {header}, such as AWS S3, MinIO or "
            "Ceph, or to a disk"
        )

    def _raise_if_rejected(self, path: str, header: str, error: Exception) -> None:
        """Raises DatasetError if the store answered that it does not support a header."""
        answer = _rejected_header(error)
        if answer:
            raise DatasetError(
                f"the store of {self._shown(path)} does not accept a PutObject with {header} "
                f"({answer}); set {CHECKSUMS}=when_required if it refuses checksums, else write to "
                f"a store that honours {header}, such as AWS S3, MinIO or Ceph, or to a disk"
            ) from error

    def _shown(self, path: str) -> str:
        return redact_credentials(self.canonical(path))

    def list_objects(self, path: str) -> list[StoredObject]:
        """Lists a folder, a glob or a single object; sorted by URL.

        Raises FileNotFoundError if the bucket does not exist.
        """
        listed = super().list_objects(path)
        if not listed:
            # an empty listing does not show whether the bucket exists
            bucket = self._fs.split_path(path)[0]
            self._fs.call_s3("head_bucket", Bucket=bucket)
        return listed


def _rejected_header(error: Exception) -> str:
    """Returns the store's answer if it says that a header is not supported; else nothing."""
    response = getattr(error.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(response.get("Error", {}).get("Code", ""))
    if status == 501 or getattr(error, "errno", None) == errno.ENOSYS:
        return f"status 501, {bare(str(error))}"
    if status == 400 and code in REJECTED_HEADER_CODES:
        return f"status 400 {code}, {bare(str(error))}"
    return ""
