"""Do the kernels of a GPU compute what plain XLA computes, on this GPU, and how fast?

    python jobs/check_gpu.py                # on a machine with an NVIDIA GPU of 24 GB or more: a
    minute python jobs/check_gpu.py --interpret    # anywhere: small sizes in the interpreter, no
    times

Runs experts and attention at the sizes of one of eight shards of Grok-1, by both paths on the same
numbers. Prints for each case the largest difference and what is allowed, the time of one call, and
the bytes that the call must read at least, per second. Exit code 1: the paths differ. Needs JAX
with CUDA, dm-haiku and jaxtyping; no Ray. `jobs/benchmark.py --model grok-1-shard` measures the
whole engine.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.platform import GPU, INTERPRETED
from actors.kernels.interface import Experts, Kernels, Placement
from actors.kernels.xla.platform import XLA

REPEATS = 20
EXPERTS, CHOSEN, PAGE_SIZE = 8, 2, 16
# two roundings to bfloat16 on the way, of numbers of magnitude one; float32 sums of up to six
# thousand terms in another order
ALLOWED = {"bfloat16": 0.03, "float32": 3e-4}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model's shard and of the cases."""

    width: int
    ffn: int
    heads: int
    key_size: int
    tokens: tuple[int, ...]  # of the experts' cases
    context: int  # cached tokens of each sequence
    sequences: int


SHARD = Sizes(
    width=6144,
    ffn=4096,
    heads=6,
    key_size=128,
    tokens=(1, 64, 256, 2048),
    context=4096,
    sequences=64,
)
TINY = Sizes(width=64, ffn=48, heads=3, key_size=16, tokens=(1, 24), context=64, sequences=3)


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    # kernels -> what is computed of the arguments
    function: Callable[[Kernels], Callable[..., Any]]
    arguments: tuple[Any, ...]
    dtype: str
    least_bytes: float  # that one call must read


def main(arguments: Sequence[str]) -> int:
    """Runs the check of a command line and returns its exit code."""
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
        return 2
    print(f"{device.device_kind}, jax {jax.__version__}")
    kernels, sizes = (INTERPRETED.kernels, TINY) if interpret else (GPU.kernels, SHARD)
    right = [_report(case, kernels, timed=not interpret) for case in cases(sizes)]
    return 0 if all(right) else 1


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yields the comparisons, each with numbers of its own."""
    for dtype in ALLOWED:
        weights = _experts(sizes)
        for tokens in sizes.tokens:
            yield _experts_case(sizes, weights, tokens, dtype)
        yield _attention_case("decode", sizes, sizes.sequences, 1, dtype)
        yield _attention_case("prefill", sizes, max(1, sizes.sequences // 4), 16, dtype)


def _report(case: Case, kernels: Kernels, *, timed: bool) -> bool:
    """Compares and times one case; returns whether both paths agree."""
    ours, plain = (
        partial(jax.jit(case.function(each)), *case.arguments) for each in (kernels, XLA.kernels)
    )
    difference = float(jnp.max(jnp.abs(ours().astype(jnp.float32) - plain().astype(jnp.float32))))
    right = difference <= ALLOWED[case.dtype]
    times = ""
    if timed:
        seconds, plain_seconds = _seconds(ours), _seconds(plain)
        rate = case.least_bytes / seconds / 1e9
        times = f"   {seconds * 1e6:9,.0f} us, {rate:7,.0f} GB/s   plain XLA {plain_seconds * 1e6:9,.0f} us"
    verdict = "" if right else "   WRONG"
    allowed = f"{difference:.1e} of {ALLOWED[case.dtype]:.0e}"
    print(f"{case.name:<34} {case.dtype:<9} differs by {allowed}{times}{verdict}")
    return right


def _seconds(run: Callable[[], Any]) -> float:
    """Returns the seconds of one call, of many that are queued at once."""
    jax.block_until_ready(run())
    began = time.perf_counter()
    jax.block_until_ready([run() for _ in range(REPEATS)])
    return (time.perf_counter() - began) / REPEATS


def _experts(sizes: Sizes) -> Experts:
    """Returns random experts as the kernels of a GPU read them; plain XLA takes them too."""

    def weight(number: int, rows: int, columns: int) -> TransposedExperts:
        values = jax.random.randint(
            jax.random.key(number), (EXPERTS, columns, rows), -127, 128, jnp.int8
        )
        return TransposedExperts(
            values, jnp.full((EXPERTS, 1, columns), 1 / (74 * rows**0.5), jnp.bfloat16)
        )

    d, f = sizes.width, sizes.ffn
    return weight(0, d, f), weight(1, d, f), weight(2, f, d)


def _experts_case(sizes: Sizes, weights: Experts, tokens: int, dtype: str) -> Case:
    x = jax.random.normal(jax.random.key(tokens), (tokens, sizes.width), dtype)
    chosen = jax.lax.top_k(jax.random.uniform(jax.random.key(7), (tokens, EXPERTS)), CHOSEN)[
        1
    ].astype(jnp.int32)

    def function(kernels: Kernels) -> Callable[..., Any]:
        def rows(x: Any, chosen: Any, weights: Experts) -> Any:
            rows_AD, place_NX = kernels.grouped_ffn(x, chosen, weights)
            return rows_AD[place_NX]

        return rows

    touched = len(set(chosen.ravel().tolist()))
    return Case(
        f"experts, {tokens} tokens",
        function,
        (x, chosen, weights),
        dtype,
        touched * 3 * sizes.width * sizes.ffn,
    )


def _attention_case(name: str, sizes: Sizes, sequences: int, new: int, dtype: str) -> Case:
    table = -(-sizes.context // PAGE_SIZE)
    pages_BJ = (
        jax.random.permutation(jax.random.key(1), sequences * table)
        .reshape(sequences, table)
        .astype(jnp.int32)
    )
    length = jnp.linspace(new, sizes.context, sequences).astype(jnp.int32)
    position = jnp.arange(table * PAGE_SIZE)
    positions_BT = length[:, None] - new + jnp.arange(new)[None, :]
    live = (jax.random.uniform(jax.random.key(2), (sequences, position.size)) > 0.1) & (
        position[None, :] < length[:, None]
    )
    visible = live[:, None, :] & (position[None, None, :] <= positions_BT[:, :, None])
    nowhere = jnp.zeros_like(positions_BT)
    placement = Placement(positions_BT, nowhere, nowhere, pages_BJ, length, live, visible)
    shape = (sequences * table, PAGE_SIZE, 1, sizes.key_size)
    keys, values = (jax.random.normal(jax.random.key(seed), shape, dtype) for seed in (3, 4))
    q = jax.random.normal(jax.random.key(5), (sequences, new, sizes.heads, sizes.key_size), dtype)

    def function(kernels: Kernels) -> Callable[..., Any]:
        return lambda q, keys, values, placement: kernels.attend(
            q, keys, values, placement, sizes.key_size**-0.5
        )

    read = 2 * float(length.sum()) * sizes.key_size * jnp.dtype(dtype).itemsize
    return Case(
        f"{name}, {sequences} sequences, {new} new",
        function,
        (q, keys, values, placement),
        dtype,
        read,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
