"""What every storage backend offers: the interface, and the values that it returns."""

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as listed.

    `version` changes whenever the object does: the ETag on object storage, the modification time
    in ns on disk.
    """

    url: str
    size: int
    version: str
    # seconds since 1970; None where the store does not report it
    modified_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class OpenedObject:
    """An object that is open for reading, and the version that its bytes are of."""

    stream: BinaryIO  # seekable; closed by its user
    version: str


@dataclass(frozen=True, slots=True)
class IrregularFile:
    """A name that has no bytes to read: a link that leads nowhere, a pipe or a device."""

    url: str
    reason: str


class Backend(Protocol):
    """Operations on the objects of one kind of storage. Paths are those of its file system.

    Methods raise the errors of the file system or client; `Client` explains them.
    """

    def canonical(self, path: str) -> str:
        """Returns the URL under which a listing names the object at `path`."""
        ...

    def list_objects(self, path: str) -> list[StoredObject]:
        """Returns the objects of a folder (at any depth), a glob or a single file, if any."""
        ...

    def stat(self, path: str) -> StoredObject | None:
        """Returns the object at `path`, or None if there is none."""
        ...

    def open(
        self, path: str, *, sequential: bool, listed: StoredObject | None = None
    ) -> OpenedObject:
        """Opens the object at `path`.

        Args:
            path: of the object.
            sequential: read ahead, where each read is a request.
            listed: the object as a listing names it. Object storage opens it without a request,
                and reads fail if it has another version.
        """
        ...

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Creates the object atomically if there is none; returns whether this call created it."""
        ...

    def replace_if(self, path: str, data: bytes, version: str) -> bool:
        """Replaces the object if it has `version`, as one step. Returns whether it did."""
        ...

    def check_conditional_writes(self, path: str, *, replaces: bool) -> None:
        """Checks that `put_if_absent`, and `replace_if`, keep the object at `path`.

        Raises DatasetError if they do not, where a store may lack them.
        """
        ...

    def overwrite(self, path: str, data: bytes) -> None:
        """Writes the object whether or not there is one. Readers never see a part of it."""
        ...

    def list_irregular(self, path: str) -> list[IrregularFile]:
        """Returns what `list_objects` leaves out at `path` because it is not a regular file."""
        ...

    def remove_abandoned(self, path: str) -> int:
        """Removes temporary files of killed writers from a folder. Returns how many it removed."""
        ...
