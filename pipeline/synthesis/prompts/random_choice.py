"""Run seed, row id and purpose → choices that depend on nothing else: not on order, shard, driver or Python's version.

Only `random.Random.random` is used, whose sequence Python promises to keep; `choice`, `sample` and
`shuffle` it may change.
"""

import hashlib
import random
from collections.abc import Sequence


def row_random(seed: int, row_id: str | int, purpose: str) -> random.Random:
    """Returns a source of numbers for one row and one purpose.

    The type of the id counts, as for the seeds of samples.
    """
    address = f"{seed}\x00{type(row_id).__name__}\x00{row_id}\x00{purpose}".encode(
        "utf-8", "surrogatepass"
    )
    return random.Random(int.from_bytes(hashlib.blake2b(address, digest_size=16).digest(), "big"))


def weighted_index(weights: Sequence[float], draw: random.Random) -> int:
    """Returns an index, each as often as its weight says."""
    left = draw.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1  # rounding


def distinct_indices(size: int, count: int, draw: random.Random) -> list[int]:
    """Returns `count` different indices below `size`, in random order, in time and memory of `count` alone."""
    moved: dict[int, int] = {}
    chosen = []
    for step in range(count):
        at = step + int(draw.random() * (size - step))
        chosen.append(moved.get(at, at))
        moved[at] = moved.get(step, step)
    return chosen
