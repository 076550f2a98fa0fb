"""Measures the speed of the driver alone, and the utilization of many simulated replicas.

    python jobs/benchmark_driver.py --folder FOLDER [--rows 1000000] [--replicas 1000]
                                    [--service-s 30] [--failure-s 3600] …

Reader, buckets, dispatch, progress and writer run as in a job, from Parquet to committed Parquet in
FOLDER. Replicas are simulated: they work on their batches one after the other, each for a random
time; they may be stragglers, and they may be lost and replaced. The clock of the simulation runs
while the driver works and jumps when the driver would wait. No figure includes the time of the
simulation itself, and Ray is not used.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.benchmarks.driver import measure
from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line and returns the exit code."""
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    config = parse(
        DriverBenchmarkConfig,
        arguments,
        program="benchmark_driver.py",
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    try:
        for line in measure(config):
            print(line, flush=True)
    finally:
        shutil.rmtree(str(config.folder), ignore_errors=True)
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
