"""Checks that this machine or image runs a model: versions, devices, memory, mesh, an answer.

    python jobs/smoke.py                     # in a minute: everything but Ray
    python jobs/smoke.py --gpus 8            # and fails if there are fewer GPUs
    python jobs/smoke.py --ray               # also through the main job, on a local Ray

Exit code 0: all checks pass; 1: a check fails, and the last lines describe it. Needs no network and
only the weights of the demo. `jobs/check_gpu.py` is the next step on GPUs: it compares the kernels
with plain XLA at the sizes of Grok-1.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.checks import smoke
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.virtual_devices import use_virtual_devices


def main(arguments: Sequence[str], *, program: str = "smoke.py") -> int:
    """Runs the checks of a command line and returns the exit code."""
    flags = _parse(arguments, program)
    use_virtual_devices(flags.cpu_devices)
    checks: dict[str, smoke.Check] = {
        "versions": smoke.versions,
        "devices": partial(smoke.devices, flags.gpus),
        "mesh": smoke.mesh,
        "answer": smoke.answer,
    }
    if flags.ray:
        checks["through Ray"] = smoke.through_ray

    if not smoke.run_checks(checks):
        return ExitCode.FAILED
    return ExitCode.OK


def _parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program, description=str(__doc__).split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--gpus", type=int, default=0, help="least number of GPUs; default 0: any, also none"
    )
    parser.add_argument(
        "--cpu-devices",
        type=int,
        default=1,
        help="virtual devices where there is no GPU (default 1)",
    )
    parser.add_argument(
        "--ray", action="store_true", help="also run the main job on a local Ray: another minute"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_main(main)
