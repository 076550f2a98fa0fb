"""Handlers of SIGTERM and Ctrl-C: a run polls a flag and stops where no result is lost."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

from pipeline.errors import InterruptedRunError

Handler = Callable[[int, FrameType | None], object] | int | None

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DEFAULT_HANDLERS = (signal.SIG_DFL, signal.default_int_handler, None)


class StopSignals:
    """Records SIGTERM and the first Ctrl-C within its block; a second Ctrl-C raises at once."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> Self:
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


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Reinstalls, after the block, the handlers that this program had set before it.

    `ray.init` replaces them by its own.
    """
    previous: dict[int, Handler] = {}
    for stop_signal in STOP_SIGNALS:
        previous[stop_signal] = signal.getsignal(stop_signal)
    yield

    for number, handler in previous.items():
        if handler not in _DEFAULT_HANDLERS:
            signal.signal(number, handler)


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
