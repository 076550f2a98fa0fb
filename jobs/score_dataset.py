"""Computes completions or log-likelihoods of a data set of prompts; the main job.

    python jobs/score_dataset.py -C job.yaml [--flag value …]        every flag: --help
    ray job submit --working-dir . -- python jobs/score_dataset.py -C job.yaml

Exit codes: 0 all rows committed; 3 all committed, some with row errors within the budget; 4 error
budget exceeded; 2 bad arguments or data set, nothing was started; 75 interrupted, cluster lost or
limit reached: the same command continues; 1 anything else.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.run.backend import RAY, Backend
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from pipeline.monitoring.run_log import RunLog


def main(
    arguments: Sequence[str], backend: Backend = RAY, *, program: str = "score_dataset.py"
) -> int:
    """Runs the job of a command line and returns its exit code."""
    try:
        config = parse(
            ScoreConfig,
            arguments,
            program=program,
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
    except GrokBatchError as error:
        return RunLog().failed(error, ExitCode.BAD_ARGUMENTS)
    return run_job(config, backend)


if __name__ == "__main__":
    run_main(main)
