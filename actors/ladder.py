"""The one ladder of lengths. Buckets group by it, the engine compiles for it; a length off the ladder is an error.

Standard library only: driver and replicas both read it.
"""

from bisect import bisect_left

SHORTEST = 16
STEPS_PER_OCTAVE = 4  # 16 20 24 28 | 32 40 48 56 | 64 …: a length is padded by a fifth at most, a tenth on average


def length_ladder(longest: int) -> tuple[int, ...]:
    """Returns the lengths that are compiled, ascending; the last one holds `longest` tokens."""
    if longest < 1:
        raise ValueError(f"the longest length must be at least 1, got {longest}")
    rungs = [SHORTEST]
    while rungs[-1] < longest:
        octave = SHORTEST << (len(rungs) // STEPS_PER_OCTAVE)
        rungs.append(octave + octave * (len(rungs) % STEPS_PER_OCTAVE) // STEPS_PER_OCTAVE)
    return tuple(rungs)


def rung(length: int, ladder: tuple[int, ...]) -> int:
    """Returns the shortest length of `ladder` that holds `length` tokens.

    Raises:
        ValueError: `length` is longer than the ladder.
    """
    index = bisect_left(ladder, length)
    if index == len(ladder):
        raise ValueError(f"length {length} is beyond the ladder's last rung {ladder[-1]}")
    return ladder[index]
