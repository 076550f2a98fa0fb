"""The last rows that were added, found by keys that they have in common with another: in memory that does not grow.

Hash chains over a ring, as LZ77 finds earlier text: `heads` holds, for every bucket of a key, the
newest row with it, and `before` the next older one of each row. Rows that left the window are
recognised by their number, so nothing is ever removed. Keys may collide: the caller compares the
rows it is given.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# rows of one bucket that are looked at, newest first: many rows that share a key must not take time
MOST_FOLLOWED = 32
BYTES_PER_KEY = 4 * 2 + 4  # heads, up to two per row, and `before`
# 2**64 over the golden ratio: the high bits of the product depend on all bits of the key
_SPREAD = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


class RecentRows:
    """A window over rows that are numbered from 0 on."""

    def __init__(self, capacity: int, keys: int) -> None:
        """Makes room for `capacity` rows with `keys` keys each. Memory is taken as it is filled."""
        self.capacity, self.added = capacity, 0
        self._bits = max(1, (capacity - 1).bit_length())
        # number of the newest row + 1; 0: none
        self._heads = np.zeros((keys, 1 << self._bits), np.uint32)
        self._before = np.zeros((keys, capacity), np.uint32)

    def place(self, row: int) -> int:
        """Returns where a row of the window is kept in arrays of `capacity` entries."""
        return row % self.capacity

    def candidates(self, keys: Sequence[int]) -> Iterator[int]:
        """Yields rows of the window that have one of `keys` in its position, or look as if they had; each once."""
        seen: set[int] = set()
        for position, key in enumerate(keys):
            row = int(self._heads[position, self._bucket(key)]) - 1
            for _ in range(MOST_FOLLOWED):
                if row < 0 or row < self.added - self.capacity:
                    break
                if row not in seen:
                    seen.add(row)
                    yield row
                row = int(self._before[position, self.place(row)]) - 1

    def add(self, keys: Sequence[int]) -> int:
        """Adds a row, in place of the oldest one when the window is full; returns its number."""
        row = self.added
        for position, key in enumerate(keys):
            bucket = self._bucket(key)
            self._before[position, self.place(row)] = self._heads[position, bucket]
            self._heads[position, bucket] = row + 1
        self.added += 1
        return row

    def _bucket(self, key: int) -> int:
        return ((key * _SPREAD) & _WORD) >> (64 - self._bits)
