"""Object storage and local disks: listings, reads, and writes that appear as a whole.

The functions are those of `DEFAULT_CLIENT`, with the short retry window of the time before a run. A
run passes `RUN_CLIENT`.
"""

from actors.retries import RetryPolicy
from pipeline.storage.backend import IrregularFile, StoredObject
from pipeline.storage.client import BEFORE_RUN, DURING_RUN, Client, join

__all__ = [
    "BEFORE_RUN",
    "DEFAULT_CLIENT",
    "DURING_RUN",
    "RUN_CLIENT",
    "Client",
    "IrregularFile",
    "RetryPolicy",
    "StoredObject",
    "canonical",
    "check_scheme_is_writable",
    "join",
    "list_irregular",
    "list_objects",
    "open_object",
    "overwrite",
    "put_if_absent",
    "read",
    "remove_abandoned",
    "replace_if",
    "stat",
]

DEFAULT_CLIENT = Client(BEFORE_RUN)
RUN_CLIENT = Client(DURING_RUN)

canonical = DEFAULT_CLIENT.canonical
check_scheme_is_writable = DEFAULT_CLIENT.check_scheme_is_writable
list_irregular = DEFAULT_CLIENT.list_irregular
list_objects = DEFAULT_CLIENT.list_objects
open_object = DEFAULT_CLIENT.open_object
overwrite = DEFAULT_CLIENT.overwrite
put_if_absent = DEFAULT_CLIENT.put_if_absent
read = DEFAULT_CLIENT.read
remove_abandoned = DEFAULT_CLIENT.remove_abandoned
replace_if = DEFAULT_CLIENT.replace_if
stat = DEFAULT_CLIENT.stat
