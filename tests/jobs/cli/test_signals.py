"""jobs/cli/signals.py: which signals are recorded, and which handlers are left afterwards."""

import os
import signal

import pytest

from jobs.cli.signals import StopSignals, keep_handlers, raise_on_sigterm
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


def test_keep_handlers_reinstalls_only_handlers_of_the_program() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def handler_of_ray(number: int, frame: object) -> None:
        raise AssertionError("the library's handler was called")

    try:
        with StopSignals() as signals:
            with keep_handlers():
                signal.signal(signal.SIGTERM, handler_of_ray)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.received

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with keep_handlers():
            signal.signal(signal.SIGTERM, handler_of_ray)
        assert signal.getsignal(signal.SIGTERM) is handler_of_ray
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_raise_on_sigterm_raises_and_restores_the_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError), raise_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
