"""jobs/cli/signals.py: which signals are recorded, and which handlers are left afterwards."""

import contextlib
import os
import signal
import threading

import pytest

from jobs.cli.signals import STOP_SIGNALS, StopSignals, raise_on_sigterm, stop_at_once
from pipeline.errors import InterruptedRunError


def test_stop_signals_record_sigterm_and_restore_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received
        os.kill(os.getpid(), signal.SIGTERM)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_second_ctrl_c_raises_at_once() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def _raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    pytest.fail("the block has gone on")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_stop_at_once_ends_the_block_and_restores_the_handlers(number: int) -> None:
    with StopSignals() as signals:
        with pytest.raises(InterruptedRunError, match="before it started"), stop_at_once():
            _raise_signal(number)

        assert not signals.received
        os.kill(os.getpid(), number)
        assert signals.received


def test_stop_at_once_is_not_an_exception_that_a_library_catches() -> None:
    with pytest.raises(InterruptedRunError), stop_at_once(), contextlib.suppress(Exception):
        _raise_signal(signal.SIGTERM)


def test_stop_at_once_ends_after_a_block_that_lost_the_signal() -> None:
    with pytest.raises(InterruptedRunError), stop_at_once(), contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("code", [0, 1, signal.SIGTERM])
def test_stop_at_once_converts_the_exit_of_a_library_at_sigterm(code: int) -> None:
    expected = InterruptedRunError if code == signal.SIGTERM else SystemExit
    with pytest.raises(expected), stop_at_once():
        raise SystemExit(code)


def test_stop_at_once_leaves_handlers_of_a_library_without_others() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def handler_of_ray(number: int, frame: object) -> None:
        raise AssertionError("the library's handler was called")

    try:
        with StopSignals() as signals:
            with stop_at_once():
                signal.signal(signal.SIGTERM, handler_of_ray)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.received

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with stop_at_once():
            signal.signal(signal.SIGTERM, handler_of_ray)
        assert signal.getsignal(signal.SIGTERM) is handler_of_ray
    finally:
        signal.signal(signal.SIGTERM, before)


def test_stop_at_once_leaves_signals_to_the_main_thread() -> None:
    handlers: list[object] = []

    def run() -> None:
        with stop_at_once():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_raise_on_sigterm_raises_and_restores_the_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError), raise_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
