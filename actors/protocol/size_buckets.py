"""Lengths: the block that the engine computes prompts in, and the ladder by which the driver puts like lengths together.

The engine pads a prompt to whole blocks and compiles for numbers of blocks, not for lengths
(actors/engine/scheduler.py); prompts of one rung come to their end at about the same time. Standard
library only: driver and replicas both read it.
"""

from bisect import bisect_left

BLOCK = 8  # tokens
SHORTEST = 16
# 16 20 24 28 | 32 40 48 56 | 64 …: lengths of a rung differ by a fifth at most
STEPS_PER_OCTAVE = 4


def length_ladder(longest: int) -> tuple[int, ...]:
    """Returns the rungs, ascending; the last one holds `longest` tokens."""
    if longest < 1:
        raise ValueError(f"the longest length must be at least 1, got {longest}")
    rungs = [SHORTEST]
    while rungs[-1] < longest:
        octave = SHORTEST << (len(rungs) // STEPS_PER_OCTAVE)
        rungs.append(octave + octave * (len(rungs) % STEPS_PER_OCTAVE) // STEPS_PER_OCTAVE)
    return tuple(rungs)


def padded(length: int) -> int:
    """Returns the positions that `length` tokens take in the engine: whole blocks."""
    return -(-length // BLOCK) * BLOCK


def rung(length: int, ladder: tuple[int, ...]) -> int:
    """Returns the shortest length of `ladder` that holds `length` tokens.

    Raises:
        ValueError: `length` is longer than the ladder.
    """
    index = bisect_left(ladder, length)
    if index == len(ladder):
        raise ValueError(f"length {length} is beyond the ladder's last rung {ladder[-1]}")
    return ladder[index]
