"""Exit codes of the commands; README.md lists those of the main job.

A job that a limit of time or money ends has the exit code of an interruption, but the same command
would end at once again. A note distinguishes it for the program that repeats commands: a process on
the same machine reads it from a file, others find it in the job's log.
"""

import os
import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

from pipeline.errors import LimitReachedError

# Variable with the path of the file, set by the program that repeats the command.
LIMIT_FILE = "GROK_BATCH_LIMIT_FILE"
_IN_LOG = re.compile(
    r"^interrupted: --(?:max-cost|max-replica-hours|deadline)\b"
    rf'|^\{{.*"error": "{LimitReachedError.__name__}"',
    re.MULTILINE,
)


class ExitCode(IntEnum):
    """What a command returns to the shell or the scheduler that started it."""

    OK = 0
    FAILED = 1
    BAD_ARGUMENTS = 2  # arguments or data set are not valid; nothing was started
    ROW_ERRORS = 3  # all rows are committed, some of them with errors within the budget
    OVER_BUDGET = 4  # more rows failed than --max-error-rate allows
    REGRESSION = 5  # a metric of an evaluation is significantly worse than before
    TOO_FEW_ROWS = 6  # a data set is complete with fewer rows than --target-rows
    INTERRUPTED = 75  # a signal, a limit, or the cluster was lost; the same command continues

    @property
    def is_complete(self) -> bool:
        """Whether all rows of a run of the main job are committed."""
        return self in (ExitCode.OK, ExitCode.ROW_ERRORS)


def write_limit_note(error: Exception, environment: Mapping[str, str] = os.environ) -> None:
    """Writes the note if the error is that of a limit and a program reads notes."""
    path = environment.get(LIMIT_FILE)
    if path and isinstance(error, LimitReachedError):
        Path(path).write_text(str(error))


def has_limit_note(log: str) -> bool:
    """Returns whether a log, as text or JSON, has the message of a limit."""
    return _IN_LOG.search(log) is not None
