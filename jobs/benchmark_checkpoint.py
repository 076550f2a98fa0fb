"""Measures how fast weights load, compared with the sequential rate of the disk.

Prints a table. Writes its own checkpoint in xAI's format and deletes it.

    python jobs/benchmark_checkpoint.py --folder FOLDER [--layers 8] [--rounds 3]
                                        [--s3 s3://bucket/prefix]

Every round reads the same files once from a cold page cache with one buffer (the disk's own
sequential rate), then loads each layout onto each mesh in a new process, cold too. A row is the
median of its rounds; "of the disk" is the median of the ratios within a round, since a shared
machine is not equally fast in every round. "Host beyond arrays" is the peak of the process's memory
less what it had before and less the arrays, which on CPU devices lie in host memory as well.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.benchmarks.checkpoint import CheckpointBenchmarkConfig, run_benchmark
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line and returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    config = parse(
        CheckpointBenchmarkConfig,
        arguments,
        program="benchmark_checkpoint.py",
        description=str(__doc__),
    )
    run_benchmark(config)
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
