"""An executor that runs calls at once, in place of a thread."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Immediate(Executor):
    """Runs a call before `submit` returns; errors are raised by the future."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **words: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **words))
        except Exception as error:  # noqa: BLE001 (as a thread: the future raises it)
            future.set_exception(error)
        return future
