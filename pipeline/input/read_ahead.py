"""Calls for many files, several at a time and in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

FILES_AT_ONCE = 16


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], at_once: int = FILES_AT_ONCE
) -> Iterator[Result]:
    """Yields `function(item)` of each item, in order, while it is called for `at_once` items.

    Items beyond these are not touched: a consumer that stops early leaves them alone.

    Raises what `function` raises, where its result would be.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(at_once)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
