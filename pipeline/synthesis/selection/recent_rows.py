"""Index of the last rows that were added, searched by keys that rows have in common.

Hash chains over a ring, as LZ77 finds earlier text: `heads` holds, for every bucket of a key, the
newest row with it, and `before` the next older one of each row. Rows that left the window are
recognised by their number, so nothing is ever removed, and memory does not grow. Keys may collide:
the caller compares the rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# rows of one bucket that are followed, newest first: many rows with one key must not take time
MAX_CHAIN = 32
BYTES_PER_KEY = 4 * 2 + 4  # heads, up to two per row, and `before`
# 2**64 over the golden ratio: the high bits of the product depend on all bits of the key
_SPREAD = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


class RecentRows:
    """A window over rows that are numbered from 0 on."""

    def __init__(self, capacity: int, keys: int) -> None:
        """Makes room for `capacity` rows with `keys` keys each."""
        self.capacity = capacity
        self.added = 0
        self._bits = max(1, (capacity - 1).bit_length())
        # number of the newest row + 1; 0: none
        self._heads = np.zeros((keys, 1 << self._bits), np.uint32)
        self._before = np.zeros((keys, capacity), np.uint32)

    @property
    def nbytes(self) -> int:
        """Memory of the index, bytes."""
        return self._heads.nbytes + self._before.nbytes

    def slot(self, row: int) -> int:
        """Returns the position of a row of the window in arrays of `capacity` entries."""
        return row % self.capacity

    def candidates(self, keys: Sequence[int]) -> Iterator[int]:
        """Yields rows of the window that share a key with `keys`, or whose key collides; each once.

        Args:
            keys: one key per position; keys are compared within their position.
        """
        seen: set[int] = set()
        for position, key in enumerate(keys):
            row = int(self._heads[position, self._bucket(key)]) - 1
            for _ in range(MAX_CHAIN):
                if row < 0 or row < self.added - self.capacity:
                    break
                if row not in seen:
                    seen.add(row)
                    yield row
                row = int(self._before[position, self.slot(row)]) - 1

    def add(self, keys: Sequence[int]) -> int:
        """Adds a row, in place of the oldest one when the window is full; returns its number."""
        row = self.added
        for position, key in enumerate(keys):
            bucket = self._bucket(key)
            self._before[position, self.slot(row)] = self._heads[position, bucket]
            self._heads[position, bucket] = row + 1
        self.added += 1
        return row

    def _bucket(self, key: int) -> int:
        return ((key * _SPREAD) & _WORD) >> (64 - self._bits)
