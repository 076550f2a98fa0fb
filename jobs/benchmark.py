"""Measures the speed of the engine on this machine, relative to the limits of the machine.

    python jobs/benchmark.py --model small                       # on CPU
    python jobs/benchmark.py --model small --mesh 1x4 --json result.json
    python jobs/benchmark.py --model grok-1-shard --layers 8 --slots 64,128,256 --context 512
                                                                 # on one GPU: four minutes

Measures, in one run: the machine's own rate in a large matrix product and in reading and copying
memory; prefill; decode at several numbers of slots; on a GPU, the time of each kernel. Prints a
table and writes JSON. MFU: useful operations of the chosen experts only. MBU: bytes of weights and
cache that a step must read, once. "of roof" compares with the slower of the two limits. Runs the
engine alone: no Ray, no text, no package beyond JAX, dm-haiku, jaxtyping, llvmlite and
jsonargparse.
"""

import json
import math
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
from jobs.cli.virtual_devices import use_virtual_devices


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line and returns the exit code."""
    # JAX starts with the engine: not for --help, and not before its devices are configured.
    from jobs.benchmarks.engine_config import EngineBenchmarkConfig

    try:
        config = parse(
            EngineBenchmarkConfig,
            arguments,
            program="benchmark.py",
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
        mesh_shape = config.mesh_shape()
        use_virtual_devices(math.prod(mesh_shape))

        from jobs.benchmarks.engine import measure
        from jobs.benchmarks.engine_table import print_figures

        figures = measure(config, mesh_shape)
    except GrokBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_ARGUMENTS

    print_figures(figures)
    if config.json:
        Path(config.json).write_text(json.dumps(figures, indent=2) + "\n")
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
