"""Errors that stop a job before or while it runs.

Errors of single rows and of replicas are in actors/protocol/errors.py.

    GrokBatchError
    ├── DatasetError   input or output data cannot be used: exit code 2 before the start, 1 later
    │   └── OutageError    object storage does not answer; the same command continues later
    ├── ConfigError    flags, YAML or run folder contradict each other: exit code 2
    ├── InterruptedRunError  SIGTERM: committed shards are kept: exit code 75
    │   └── LimitReachedError    --max-cost, --max-replica-hours or --deadline: exit code 75
    ├── ErrorBudgetError     more rows failed than --max-error-rate allows: exit code 4
    └── CommitError    a row came twice, not at all, or from nowhere: exit code 1

Each takes one argument, the message.
"""

from actors.protocol.errors import GrokBatchError


class DatasetError(GrokBatchError):
    """A data set (file, column, run folder) is missing, damaged or of the wrong type."""


class OutageError(DatasetError):
    """Object storage did not answer for longer than the run waits.

    The same command continues later.
    """


class ConfigError(GrokBatchError):
    """The configuration is not valid, or the job cannot run with it."""


class InterruptedRunError(GrokBatchError):
    """The run received a signal to stop (SIGTERM).

    Committed shards are kept and the same command continues it: exit code 75.
    """


class LimitReachedError(InterruptedRunError):
    """The run ends before it exceeds a limit on its time or money.

    Committed shards are kept and the same command with a higher limit continues it: exit code 75.
    """


class ErrorBudgetError(GrokBatchError):
    """More rows failed than --max-error-rate allows: exit code 4."""


class CommitError(GrokBatchError):
    """A row came twice, never, or from nowhere: a fault of this program, the job stops."""
