"""Starts a command, and maps known errors and signals to exit codes."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from actors.protocol.errors import GrokBatchError
from jobs.cli.exit_codes import ExitCode
from jobs.cli.signals import raise_on_sigterm
from jobs.cli.streams import use_lasting_streams
from pipeline.errors import ConfigError, InterruptedRunError


def run_main(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs the command of this process and exits with its code.

    Args:
        main: takes the words of the command line, without the name of the program.
    """
    use_lasting_streams()
    sys.exit(main(sys.argv[1:]))


def run_command(work: Callable[[], int]) -> int:
    """Returns the exit code of `work`.

    A known error is printed as one line. SIGTERM and Ctrl-C give exit code 75.
    """
    try:
        with raise_on_sigterm():
            return work()
    except (InterruptedRunError, KeyboardInterrupt):
        print("interrupted; the same command continues", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_ARGUMENTS
    except GrokBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
