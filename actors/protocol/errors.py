"""Exceptions that cross the border between driver and replicas, sorted by who acts on them.

    GrokBatchError
    ├── RequestError          the row is written with status "error" and this code; other rows go on
    │   ├── MissingPromptError        missing_prompt        the prompt is null
    │   ├── EmptyPromptError          empty_prompt          the prompt has no token
    │   ├── InvalidPromptError        invalid_prompt        wrong type or UTF-8, no continuation
    │   ├── InvalidTokenError         invalid_token         a token id outside the vocabulary
    │   ├── PromptTooLongError        prompt_too_long       does not fit in --max-len
    │   ├── InvalidParameterError     invalid_parameter     sampling parameter out of range
    │   └── EngineCrashError          engine_crash          the row alone kills its replica
    ├── ReplicaError          the batch is queued again, on this or another replica
    ├── ModelError            checkpoint, mesh or memory do not fit the model: the job stops
    └── ClusterLostError      the Ray cluster does not answer: the same command continues the job

The driver's own errors (DatasetError, ConfigError) live in pipeline/errors.py. Every class takes
exactly one argument, the message, so that it survives pickling on its way through Ray. A message is
one sentence: what, where, expected, got, cure.
"""

from actors.protocol.plain_text import plain_message


class GrokBatchError(Exception):
    """Base of every error this project raises on purpose.

    The message is one bounded line without credentials, whatever values are in it.
    """

    exit_code: int | None = None  # of the job that it ended, where a job has ended

    def __init__(self, message: str) -> None:
        super().__init__(plain_message(message))


class RequestError(GrokBatchError):
    """One request cannot be run. `code` is what the output column `error_code` shows."""

    code = "invalid_request"


class MissingPromptError(RequestError):
    """The prompt, or a part of it that the task needs, is null."""

    code = "missing_prompt"


class EmptyPromptError(RequestError):
    """The prompt, or a continuation to score, has no token."""

    code = "empty_prompt"


class InvalidPromptError(RequestError):
    """The prompt cannot be read as text or token ids."""

    code = "invalid_prompt"


class InvalidTokenError(RequestError):
    """A token id lies outside the model's vocabulary."""

    code = "invalid_token"


class PromptTooLongError(RequestError):
    """Prompt and completion together exceed the longest sequence of this run."""

    code = "prompt_too_long"


class InvalidParameterError(RequestError):
    """A sampling parameter of this row is out of its range."""

    code = "invalid_parameter"


class EngineCrashError(RequestError):
    """The request, run alone, killed its replica as often as attempts are allowed."""

    code = "engine_crash"


class ReplicaError(GrokBatchError):
    """A replica died, hung or lost its node.

    The work it held was not done and may be tried again.
    """


class ModelError(GrokBatchError):
    """Model, checkpoint, mesh or memory do not fit together; trying again would fail again."""


class ClusterLostError(GrokBatchError):
    """The head of the Ray cluster, or the driver's own node, is gone.

    The job ends with exit code 75; the same command continues the run.
    """
