"""Random choices that depend on run seed, row id and purpose alone.

They do not depend on order, shard, driver or version of Python: only `random.Random.random` is
used, whose sequence Python keeps; `choice`, `sample` and `shuffle` may change.
"""

import hashlib
import random
from collections.abc import Sequence


def row_random(seed: int, row_id: str | int, purpose: str) -> random.Random:
    """Returns the generator of random numbers for one row and one purpose.

    The type of the id counts, as for the seeds of samples.
    """
    address = f"{seed}\x00{type(row_id).__name__}\x00{row_id}\x00{purpose}"
    digest = hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def weighted_index(weights: Sequence[float], generator: random.Random) -> int:
    """Returns an index with a probability in proportion to its weight."""
    remaining = generator.random() * sum(weights)
    for index, weight in enumerate(weights):
        remaining -= weight
        if remaining < 0:
            return index
    return len(weights) - 1  # rounding


def distinct_indices(size: int, count: int, generator: random.Random) -> list[int]:
    """Returns `count` different indices below `size` in random order.

    A Fisher-Yates shuffle that stores moved indices only: time and memory depend on `count` alone.
    """
    moved: dict[int, int] = {}
    chosen = []
    for step in range(count):
        position = step + int(generator.random() * (size - step))
        chosen.append(moved.get(position, position))
        moved[position] = moved.get(step, step)
    return chosen
