"""S3 in memory behind `pipeline.storage.s3`: conditional puts, ETags, faults at chosen calls.

No HTTP: for properties.
"""

import errno
import hashlib
from collections.abc import Callable
from io import BytesIO
from threading import Lock
from typing import Any

import pytest

from pipeline.storage import s3


class _Opened(BytesIO):
    def __init__(self, data: bytes, etag: str, call: Callable[[str], None]) -> None:
        super().__init__(data)
        self.size, self.details, self._call = len(data), {"ETag": f'"{etag}"'}, call
        self.read_kw: dict[str, str] = {}

    def read(self, size: int | None = -1) -> bytes:
        self._call("get")
        return super().read(size)


def undisturbed_call(operation: str, when: str) -> None:
    """Lets a call pass."""


class MemoryS3:
    """What storage uses of s3fs.

    `at(operation, when)` is called before and after each call and may raise.
    """

    def __init__(self, at: Callable[[str, str], None] = undisturbed_call) -> None:
        self.objects: dict[str, bytes] = {}
        self.at, self.retries, self._lock = at, 1, Lock()

    def pipe_file(
        self, path: str, data: bytes, mode: str = "overwrite", IfMatch: str | None = None, **_: Any
    ) -> None:
        self.at("put", "before")
        with self._lock:
            there = self.objects.get(path)
            if mode == "create" and there is not None:
                raise OSError(errno.EINVAL, "Invalid argument")  # as radosgw says it
            if IfMatch is not None and (there is None or IfMatch != f'"{_etag(there)}"'):
                raise OSError(errno.EINVAL, "Invalid argument")
            self.objects[path] = bytes(data)
        self.at("put", "after")

    def info(self, path: str) -> dict[str, Any]:
        self.at("head", "before")
        return self._info(path)

    def _info(self, path: str) -> dict[str, Any]:
        if path in self.objects:
            return {
                "name": path,
                "size": len(self.objects[path]),
                "ETag": f'"{_etag(self.objects[path])}"',
                "type": "file",
            }
        if any(name.startswith(path.rstrip("/") + "/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def exists(self, path: str) -> bool:
        return path in self.objects

    def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        self.at("list", "before")
        return {
            name: self._info(name)
            for name in sorted(self.objects)
            if name.startswith(path.rstrip("/") + "/")
        }

    def open(self, path: str, mode: str, size: int | None = None, **_: Any) -> _Opened:
        # s3fs makes no request where the size is given.
        info = self.info(path) if size is None else self._info(path)
        return _Opened(
            self.objects[path],
            info["ETag"].strip('"'),
            lambda operation: self.at(operation, "before"),
        )

    def call_s3(self, method: str, **_: Any) -> None:
        self.at(method, "before")

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def unstrip_protocol(self, path: str) -> str:
        return f"s3://{path}"


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def serve(store: MemoryS3, patch: pytest.MonkeyPatch) -> str:
    """Returns a URL that leads to `store` as long as `patch` holds."""

    def filesystem(url: str, config: s3.S3Config) -> tuple[Any, str]:
        return store, url.removeprefix("s3://").rstrip("/")

    patch.setattr(s3, "filesystem", filesystem)
    return "s3://bucket/run"
