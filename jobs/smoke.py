"""Checks that this machine or image runs a model: packages, disks, Ray, stores, devices, an answer.

    grok-batch doctor                        # in a minute: everything but a run on Ray
    grok-batch doctor --url s3://bucket/in/  # and whether this folder can be listed
    python jobs/smoke.py                     # the same, from a checkout
    python jobs/smoke.py --gpus 8            # and fails if there are fewer GPUs
    python jobs/smoke.py --ray               # also through the main job, on a local Ray

Exit code 0: all checks pass; 1: a check fails, and the last lines describe it. Needs only the
weights of the demo; --url and RAY_ADDRESS are the only uses of the network. `jobs/check_gpu.py` is
the next step on GPUs: it compares the kernels with plain XLA at the sizes of Grok-1.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.checks import environment, smoke
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import check_range
from jobs.cli.parser import flag, parse
from jobs.cli.virtual_devices import use_virtual_devices


@dataclass(frozen=True)
class DoctorConfig:
    """Flags of the checks of a machine."""

    gpus: int = flag(0, "least number of GPUs; 0: any, also none")
    cpu_devices: int = flag(1, "virtual devices where there is no GPU")
    url: str | None = flag(
        None, "folder or file to list, any URL: whether credentials, network and permission fit"
    )
    ray: bool = flag(False, "also run the main job on a local Ray: another minute")

    def __post_init__(self) -> None:
        check_range("gpus", self.gpus, 0)
        check_range("cpu_devices", self.cpu_devices, 1)


def main(arguments: Sequence[str], *, program: str = "smoke.py") -> int:
    """Runs the checks of a command line and returns the exit code."""
    return run_command(lambda: _run(arguments, program))


def _run(arguments: Sequence[str], program: str) -> int:
    config = parse(
        DoctorConfig,
        arguments,
        program=program,
        description=str(__doc__).split("\n\n", maxsplit=1)[0],
    )
    use_virtual_devices(config.cpu_devices)
    checks: dict[str, smoke.Check] = {
        "versions": smoke.versions,
        "machine": partial(environment.machine, os.environ),
        "ray": partial(environment.ray_cluster, os.environ),
        "stores": partial(environment.object_stores, os.environ, config.url),
        "programs": partial(environment.program_cache, os.environ),
        "devices": partial(smoke.devices, config.gpus),
        "mesh": smoke.mesh,
        "answer": smoke.answer,
    }
    if config.ray:
        checks["through Ray"] = smoke.through_ray

    if not smoke.run_checks(checks):
        return ExitCode.FAILED
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
