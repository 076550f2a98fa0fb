"""Lengths of prompts: the engine's chunk of them, and the sizes by which the driver groups them.

The engine pads a prompt to whole chunks and compiles for numbers of chunks, not for lengths
(actors/engine/scheduling/scheduler.py). Prompts in one size bucket end at about the same time.
Standard library only: driver and replicas both use it.
"""

from bisect import bisect_left

CHUNK = 8  # tokens of one row of a prefill call
SHORTEST = 16
# 16 20 24 28 | 32 40 48 56 | 64 …: lengths in one size bucket differ by a fifth at most
STEPS_PER_OCTAVE = 4


def prompt_size_buckets(longest: int) -> tuple[int, ...]:
    """Returns the bucket sizes, ascending; the last one holds `longest` tokens."""
    if longest < 1:
        raise ValueError(f"the longest length must be at least 1, got {longest}")
    sizes = [SHORTEST]
    while sizes[-1] < longest:
        octave, step = divmod(len(sizes), STEPS_PER_OCTAVE)
        smallest = SHORTEST << octave
        sizes.append(smallest + smallest * step // STEPS_PER_OCTAVE)
    return tuple(sizes)


def padded_length(length: int) -> int:
    """Returns the positions that `length` tokens take in the engine: whole chunks."""
    return -(-length // CHUNK) * CHUNK


def bucket_size(length: int, sizes: tuple[int, ...]) -> int:
    """Returns the smallest of `sizes` that holds `length` tokens.

    Raises:
        ValueError: `length` is larger than the largest size.
    """
    index = bisect_left(sizes, length)
    if index == len(sizes):
        raise ValueError(f"length {length} is beyond the largest bucket size {sizes[-1]}")
    return sizes[index]
