import os
import signal
from collections.abc import Callable

import pytest

from actors.protocol.errors import ModelError
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from pipeline.errors import ConfigError


def failing(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def test_command_returns_the_exit_code_of_its_work() -> None:
    assert run_command(lambda: ExitCode.ROW_ERRORS) == ExitCode.ROW_ERRORS


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("--x is missing"), ExitCode.BAD_ARGUMENTS, "error: --x is missing"),
        (ModelError("no weights"), ExitCode.FAILED, "error: no weights"),
        (
            KeyboardInterrupt(),
            ExitCode.INTERRUPTED,
            "interrupted; the same command continues",
        ),
    ],
)
def test_command_maps_known_errors_to_a_line_and_a_code(
    error: BaseException, code: ExitCode, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(error)) == code
    assert capsys.readouterr().err == line + "\n"


def test_command_raises_unknown_errors() -> None:
    with pytest.raises(ValueError, match="a fault"):
        run_command(failing(ValueError("a fault")))


def test_command_exits_75_on_sigterm() -> None:
    def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return ExitCode.OK

    assert run_command(work) == ExitCode.INTERRUPTED
