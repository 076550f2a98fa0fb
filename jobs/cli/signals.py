"""Handlers of SIGTERM and Ctrl-C: a run polls a flag and stops where no result is lost."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

from pipeline.errors import InterruptedRunError

Handler = Callable[[int, FrameType | None], object] | int | None

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED_BEFORE_START = (
    "the run was interrupted before it started; the same command starts it, or continues it"
)
_DEFAULT_HANDLERS = (signal.SIG_DFL, signal.default_int_handler, None)


class StopSignals:
    """Records SIGTERM and the first Ctrl-C within its block; a second Ctrl-C raises at once.

    Outside the main thread it records nothing: Python runs signal handlers in the main thread only.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        error_class: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            _restore(number, handler)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = True


class _StopRequest(BaseException):
    """A signal arrived. Not an Exception, so that no library takes it for an error of its own."""


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Ends the block at SIGTERM or Ctrl-C: for work of which nothing needs to be kept.

    `ray.init` installs a handler of its own, which ends the program at SIGTERM with exit code 15
    and without a report. The block ends in the same way under that handler. Afterwards, the
    handlers that this program had set before are there again.

    Raises:
        InterruptedRunError: a signal arrived.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return

    is_stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        raise _StopRequest

    previous: dict[int, Handler] = {}
    for stop_signal in STOP_SIGNALS:
        previous[stop_signal] = signal.signal(stop_signal, stop)
    try:
        yield
    except _StopRequest:
        pass
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        is_stopped = True
    finally:
        for number, handler in previous.items():
            is_replaced = signal.getsignal(number) is not stop
            if is_replaced and handler in _DEFAULT_HANDLERS:
                continue  # a program without handlers keeps those of its library
            _restore(number, handler)

    # Also where the exception was lost, as in a callback of a library.
    if is_stopped:
        raise InterruptedRunError(STOPPED_BEFORE_START)


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raises InterruptedRunError on SIGTERM within the block."""
    previous: Handler = signal.signal(signal.SIGTERM, _raise_interrupted)
    try:
        yield
    finally:
        _restore(signal.SIGTERM, previous)


def _restore(number: int, handler: Handler) -> None:
    """Reinstalls a handler; None, a handler that Python did not install, becomes the default."""
    if handler is None:
        handler = signal.SIG_DFL
    signal.signal(number, handler)


def _raise_interrupted(_number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError("SIGTERM")
