"""Object storage and local disks: listings, reads, and objects that appear whole or not at all."""

from pipeline.storage.api import (
    StoredObject,
    canonical,
    join,
    list_objects,
    open_object,
    overwrite,
    put_if_absent,
    read,
    remove_abandoned,
    replace,
    stat,
)

__all__ = [
    "StoredObject",
    "canonical",
    "join",
    "list_objects",
    "open_object",
    "overwrite",
    "put_if_absent",
    "read",
    "remove_abandoned",
    "replace",
    "stat",
]
