"""A call → the same call, repeated with back-off while its errors may pass.

Which may, and for how long, its callers say.
"""

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

BUSY = (errno.EBUSY, errno.EREMOTEIO)  # how s3fs says 503 (and 409), and 500

Result = TypeVar("Result")


def repeated(
    call: Callable[[], Result],
    may_pass: Callable[[Exception], bool],
    *,
    outage_s: Callable[[], float],
    first_pause_s: float,
    longest_pause_s: float,
    shortest_share: float = 1.0,
) -> Result:
    """Returns what `call` returns.

    Calls again after errors that may pass, until that takes longer than `outage_s()`.

    Pauses double up to `longest_pause_s`; each is drawn from `shortest_share` of it upwards.
    """
    began_s, pause_s = time.monotonic(), first_pause_s
    while True:
        try:
            return call()
        except Exception as error:
            wait_s = pause_s * random.uniform(shortest_share, 1.0)
            if not may_pass(error) or time.monotonic() + wait_s - began_s > outage_s():
                raise
        time.sleep(wait_s)
        pause_s = min(2 * pause_s, longest_pause_s)
