"""Compares the results and the speed of the GPU kernels with plain XLA on this GPU.

    python jobs/check_gpu.py                # with an NVIDIA GPU of 24 GB or more: a minute
    python jobs/check_gpu.py --interpret    # anywhere: small sizes in the interpreter, no times

Runs experts and attention at the sizes of one of eight shards of Grok-1, by both paths on the same
numbers. Prints for each case the largest difference and the tolerance, the time of one call, and
the bytes that the call must read at least, per second. Exit code 1: the paths differ. Needs JAX
with CUDA, dm-haiku and jaxtyping; no Ray. `jobs/benchmark.py --model grok-1-shard` measures the
whole engine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from actors.kernels.gpu.platform import GPU, INTERPRETED
from actors.kernels.interface import Kernels
from jobs.checks.gpu_kernels import GROK_1_SHARD, TINY, compare
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode


def main(arguments: Sequence[str], interpreted: Kernels = INTERPRETED.kernels) -> int:
    """Runs the check of a command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="check_gpu.py", description=str(__doc__).split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="small sizes, in the interpreter: needs no GPU, measures nothing",
    )
    interpret = parser.parse_args(arguments).interpret

    device = jax.devices()[0]
    if device.platform != "gpu" and not interpret:
        print(
            f"error: JAX sees no GPU but {device.device_kind}; install jax[cuda12], or give "
            "--interpret",
            file=sys.stderr,
        )
        return ExitCode.BAD_ARGUMENTS

    print(f"{device.device_kind}, jax {jax.__version__}")
    sizes = GROK_1_SHARD
    kernels = GPU.kernels
    if interpret:
        sizes = TINY
        kernels = interpreted

    all_right = True
    for comparison in compare(sizes, kernels, timed=not interpret):
        print(comparison.line())
        all_right = all_right and comparison.is_right
    if not all_right:
        return ExitCode.FAILED
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
