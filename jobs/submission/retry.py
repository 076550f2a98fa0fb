"""Runs a command until it is done, cannot be done, or has used all attempts."""

import time
from collections.abc import Callable, Sequence

from jobs.cli.exit_codes import ExitCode
from jobs.submission.attempts import AttemptResult, Runner
from jobs.submission.config import SubmitConfig
from pipeline.monitoring.run_log import RunLog

# Another attempt would end the same way. 75, 1 and death by a signal may not; a job that a limit
# ends has 75, too, and counts as stopped.
FINAL_CODES = (
    ExitCode.OK,
    ExitCode.BAD_ARGUMENTS,
    ExitCode.ROW_ERRORS,
    ExitCode.OVER_BUDGET,
    ExitCode.REGRESSION,
    ExitCode.TOO_FEW_ROWS,
)
MAX_PAUSE_S = 900.0


def run_with_retries(
    runner: Runner,
    command: Sequence[str],
    config: SubmitConfig,
    log: RunLog,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Runs the command, up to `config.attempts` times; returns the exit code of the last attempt.

    An attempt that is lost counts as exit code 75.
    """
    pause_s = config.pause_s
    number = 1
    while True:
        result = runner.run(command)
        code = result.code
        if code is None:
            code = ExitCode.INTERRUPTED
        if code in FINAL_CODES or result.stopped or number == config.attempts:
            _log_attempt(log, number, config.attempts, result, pause_s=None)
            return code

        _log_attempt(log, number, config.attempts, result, pause_s)
        sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
        number += 1


def _log_attempt(
    log: RunLog, number: int, attempts: int, result: AttemptResult, pause_s: float | None
) -> None:
    """Logs how an attempt ended; `pause_s` is None after the last one."""
    outcome = f"exit code {result.code}"
    if result.code is None:
        outcome = "lost"
    message = f"attempt {number} of {attempts}: {outcome}"
    if pause_s is not None:
        message += f"; the same command again in {pause_s:g} s"

    log.event(
        "attempt_ended",
        message,
        level="info" if result.code == 0 else "warning",
        attempt=number,
        attempts=attempts,
        exit_code=result.code,
        again=pause_s is not None,
    )
