"""Submits a command as a job to a Ray cluster and retries it until it is done.

    python jobs/submit.py --name nightly -- python jobs/score_dataset.py -C job.yaml

`ray job submit` submits a job once and ends with 1 for every failure. This command adds features
for schedules: the exit code of the job; another attempt after an interruption or the loss of the
cluster, which continues the run; and joining a running job when the submitter is started again.

Exit codes: the command's; 75 when it was interrupted or lost on the last attempt too; 2 when
nothing could be submitted.
"""

import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.submission.attempts import open_runner
from jobs.submission.config import SubmitConfig, split_command_line
from jobs.submission.retry import run_with_retries
from pipeline.monitoring.run_log import RunLog

DESCRIPTION = (
    "Submits a command to a Ray cluster, waits for it, and attempts it again when it was "
    "interrupted or the cluster was lost. The command stands after --; {night} in it, or in "
    "--name, becomes a date: see --night-begins."
)


def main(arguments: Sequence[str], *, program: str = "submit.py") -> int:
    """Submits the command of a command line and returns the exit code."""
    log = RunLog()
    try:
        flags, words = split_command_line(arguments)
        config = parse(SubmitConfig, flags, program=program, description=DESCRIPTION)
        now = datetime.now(UTC)
        command = config.resolve_command(words, now)
        name = config.resolve_name(command, now)

        log = RunLog(config.log_format, run=name)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        code = run_with_retries(open_runner(config, name, log), command, config, log)
        return config.accepted(code)
    except GrokBatchError as error:
        return log.failed(error, ExitCode.BAD_ARGUMENTS)
    except KeyboardInterrupt:
        log.event(
            "interrupted",
            "interrupted: the job goes on; the same command joins it, `ray job stop` ends it",
            level="warning",
        )
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    run_main(main)
