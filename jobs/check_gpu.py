"""Compares the results and the speed of the GPU kernels with plain XLA on this GPU.

    python jobs/check_gpu.py --json gpu.json   # with an NVIDIA GPU of 24 GB or more: four minutes
    python jobs/check_gpu.py --interpret       # anywhere: small sizes in the interpreter, no times

Runs experts and attention at the sizes of one of eight shards of Grok-1, by both paths on the same
numbers, and times them, the products that XLA computes, and sampling. Prints for each case the
largest difference and the tolerance, the time of one run on the device, and its share of what this
machine can do at best: the larger of the bytes that a run must read over the measured rate of
reading, and the operations over the measured rate of products. Exit code 1: the paths differ. Needs
JAX with CUDA, dm-haiku, jaxtyping and llvmlite; no Ray. `jobs/benchmark.py --model grok-1-shard`
measures the whole engine.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from actors.kernels.gpu.platform import GPU, INTERPRETED
from actors.kernels.interface import Kernels
from jobs.checks.ceilings import GPU_SIZES, TINY_SIZES, measure_ceilings
from jobs.checks.gpu_cases import GROK_1_SHARD, KERNELS, TINY
from jobs.checks.gpu_kernels import Result, Selection, check_cases
from jobs.checks.gpu_report import report
from jobs.checks.gpu_tiles import FORM, TileResult, check_tiles, read_tile, tile_text
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode
from pipeline.errors import ConfigError


def main(arguments: Sequence[str], interpreted: Kernels = INTERPRETED.kernels) -> int:
    """Runs the check of a command line and returns the exit code."""
    flags = _parser().parse_args(arguments)
    try:
        tiles = [read_tile(text) for text in flags.tile]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_ARGUMENTS

    device = jax.devices()[0]
    if device.platform != "gpu" and not flags.interpret:
        print(
            f"error: JAX sees no GPU but {device.device_kind}; install jax[cuda12], or give "
            "--interpret",
            file=sys.stderr,
        )
        return ExitCode.BAD_ARGUMENTS

    print(f"{device.device_kind}, jax {jax.__version__}")
    sizes = GROK_1_SHARD
    ceiling_sizes = GPU_SIZES
    kernels = GPU.kernels
    if flags.interpret:
        sizes = TINY
        ceiling_sizes = TINY_SIZES
        kernels = interpreted

    ceilings = None
    is_timed = not flags.interpret or flags.json is not None
    if is_timed:
        ceilings = measure_ceilings("bfloat16", ceiling_sizes)
        print(
            f"product {ceilings.product_flops_per_s / 1e12:,.1f} TFLOP/s, reading "
            f"{ceilings.read_bytes_per_s / 1e9:,.0f} GB/s, copying "
            f"{ceilings.copy_bytes_per_s / 1e9:,.0f} GB/s"
        )

    selection = Selection(kernel=flags.kernel, tokens=flags.tokens)
    results: list[Result] = []
    for result in check_cases(sizes, kernels, is_timed=is_timed, selection=selection):
        print(result.line(ceilings), flush=True)
        results.append(result)

    tile_results: list[TileResult] = []
    for tried in check_tiles(
        sizes, kernels, tiles, selection, is_timed=is_timed, is_interpreted=flags.interpret
    ):
        line = tried.failure
        if tried.result is not None:
            line = tried.result.line(ceilings)
        print(f"tile {tile_text(tried.tile)}: {line}", flush=True)
        tile_results.append(tried)

    if flags.json and ceilings is not None:
        figures = report(results, tile_results, ceilings, is_interpreted=flags.interpret)
        Path(flags.json).write_text(json.dumps(figures, indent=2) + "\n")
    if not all(result.is_right for result in results):
        return ExitCode.FAILED
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check_gpu.py", description=str(__doc__).split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="small sizes, in the interpreter: needs no GPU, and its times mean nothing",
    )
    parser.add_argument("--kernel", choices=KERNELS, help="only the cases of this kernel")
    parser.add_argument("--tokens", type=int, help="only the cases of this number of tokens")
    parser.add_argument(
        "--tile",
        action="append",
        default=[],
        metavar=FORM,
        help="also time the experts with this tile; may be given several times",
    )
    parser.add_argument("--json", metavar="FILE", help="file for the figures and times")
    return parser


if __name__ == "__main__":
    run_main(main)
