"""Digests of rows: rows with equal digests are equal requests to the same model.

A digest covers the id of the row, its token ids, its sampling parameters with the effective seeds,
and a context: model, checkpoint and all other settings of the run that decide about results. It
does not depend on the file or the position of a row.
"""

import dataclasses
import hashlib
import struct
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any

from actors.protocol.messages import Completion, Request, RowRef
from actors.protocol.sampling import PARAMETERS
from pipeline.records import DIGEST_BYTES, ShardOpened

_LENGTH = struct.Struct("<q")
_PARAMETER_NAMES = tuple(name for name in PARAMETERS if name != "seed")
_parameter_values = attrgetter(*_PARAMETER_NAMES)
# Fields of a request that `_add_request` does not name: they count where they are set.
_NAMED_FIELDS = frozenset({"ref", "row_id", "prompt_ids", "continuations", "sampling"})
_OTHER_FIELDS = tuple(
    field for field in dataclasses.fields(Request) if field.name not in _NAMED_FIELDS
)


class RowDigests:
    """Stores the digests of the rows of a stream in the buffers that travel with their shards."""

    def __init__(self, context: bytes) -> None:
        """Has no shard yet; `context` stands for what all rows of the run share."""
        self._context = context
        self._buffer: bytearray | None = None

    def open_shard(self, opened: ShardOpened) -> None:
        """Takes the shard of all rows until the next one."""
        self._buffer = opened.digests

    def recorded(self, requests: Iterable[Request | Completion]) -> Iterator[Request | Completion]:
        """Yields the requests of a row; stores their digest behind the last one.

        A row that cannot run has none.

        Args:
            requests: all requests of the row of the shard. They need not exist at once.
        """
        digest = hashlib.blake2b(self._context, digest_size=DIGEST_BYTES)
        place: RowRef | None = None
        for request in _digested(digest, requests):
            if isinstance(request, Request):
                place = request.ref
            yield request
        if self._buffer is not None and place is not None:
            begin = DIGEST_BYTES * place.row
            self._buffer[begin : begin + DIGEST_BYTES] = digest.digest()


def row_digest(context: bytes, requests: Iterable[Request | Completion]) -> bytes:
    """Returns the digest of a row, `DIGEST_BYTES` bytes.

    Args:
        context: stands for what all rows of the run share.
        requests: all requests of the row.
    """
    digest = hashlib.blake2b(context, digest_size=DIGEST_BYTES)
    for _ in _digested(digest, requests):
        pass
    return digest.digest()


def _digested(
    digest: Any, requests: Iterable[Request | Completion]
) -> Iterator[Request | Completion]:
    """Yields the requests of a row, each added to the digest."""
    prompt_ids: array[int] | None = None
    for request in requests:
        if isinstance(request, Request):
            if prompt_ids is None:
                row_id = f"{type(request.row_id).__name__}\0{request.row_id}"
                _add_bytes(digest, row_id.encode("utf-8", "surrogatepass"))
            # All samples of a row have the same prompt: it counts once.
            if request.prompt_ids is not prompt_ids:
                prompt_ids = request.prompt_ids
                _add_bytes(digest, prompt_ids.tobytes())
            _add_request(digest, request)
        yield request


def _add_request(digest: Any, request: Request) -> None:
    """Adds what a request has beside its prompt."""
    digest.update(_LENGTH.pack(request.ref.samples))
    for continuation in request.continuations:
        _add_bytes(digest, continuation.tobytes())
    if request.sampling is not None:
        _add_bytes(digest, _parameters(_parameter_values(request.sampling)))
        digest.update(_LENGTH.pack(request.sampling.seed))
    for field in _OTHER_FIELDS:
        value = getattr(request, field.name)
        if value != field.default:
            _add_bytes(digest, f"{field.name}={value!r}".encode())


def _add_bytes(digest: Any, content: bytes) -> None:
    digest.update(_LENGTH.pack(len(content)))
    digest.update(content)


@lru_cache(maxsize=1024)
def _parameters(values: tuple[Any, ...]) -> bytes:
    """Returns the parameters that differ from their defaults; most rows of a run have the same."""
    changed: list[str] = []
    for name, value in zip(_PARAMETER_NAMES, values, strict=True):
        if value != PARAMETERS[name].default:
            changed.append(f"{name}={value!r}")
    return "\n".join(changed).encode("utf-8", "surrogatepass")
