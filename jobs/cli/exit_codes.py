"""Exit codes of the commands; README.md lists those of the main job."""

from enum import IntEnum


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
