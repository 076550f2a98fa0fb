"""Chooses the next batch of a replica, preferably one whose prefix is in the replica's cache.

A batch whose prompts share a prefix is fastest on the replica that computed the prefix before. Some
batches therefore wait for their replica while other batches overtake them, until the queue is so
long that idle replicas cost more than computing the prefix again. The number of overtakings is
bounded. Does not depend on Ray or on token ids: replicas are names, prefixes are keys.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from actors.protocol.messages import Batch

# Per replica: by then, newer prefixes have evicted the pages of older ones.
PREFIXES_PER_REPLICA = 32
# A batch is overdue when this many times `limit` batches have overtaken it.
OVERDUE_FACTOR = 4


@dataclass(slots=True, eq=False)
class _Entry:
    batch: Batch
    placed_before: int  # batches placed when this one was added
    is_placed: bool = False


class WaitingBatches:
    """Batches that are drawn from the stream and not placed yet."""

    def __init__(self) -> None:
        # Placed entries stay in these queues until they reach the front.
        self._in_order: deque[_Entry] = deque()
        self._unassigned: deque[_Entry] = deque()  # of prefixes without an owner
        self._by_prefix: dict[bytes, deque[_Entry]] = {}
        # The replica that got a batch of the prefix last, and each replica's prefixes, newest last.
        self._prefix_owner: dict[bytes, str] = {}
        self._prefixes_of: dict[str, OrderedDict[bytes, None]] = {}
        self._count = 0
        self._placed = 0

    def __len__(self) -> int:
        return self._count

    def add(self, batch: Batch) -> None:
        """Adds a batch behind all others."""
        entry = _Entry(batch, self._placed)
        self._count += 1
        self._in_order.append(entry)

        key = batch.prefix_key
        if key is not None:
            self._by_prefix.setdefault(key, deque()).append(entry)
        if self._is_unassigned(batch):
            self._unassigned.append(entry)

    def take(self, replica: str, limit: int, *, steal: bool) -> Batch | None:
        """Removes and returns the next batch of `replica`; None when all fit other replicas better.

        Args:
            replica: has room for a batch.
            limit: when this many batches wait, the oldest goes to any replica.
            steal: the input is exhausted: another replica's batch is better than none.
        """
        entry = self._overdue(limit) or self._owned(replica) or self._first_unassigned()
        if entry is None and (steal or self._count >= limit):
            entry = _first(self._in_order)
        if entry is None:
            return None

        entry.is_placed = True
        self._count -= 1
        self._placed += 1
        if entry.batch.prefix_key is not None:
            self._assign(entry.batch.prefix_key, replica)
        return entry.batch

    def forget(self, replica: str) -> None:
        """Drops what a replica owns: it is gone, and its cache with it."""
        for key in self._prefixes_of.pop(replica, ()):
            self._unassign(key, replica)

    def _is_unassigned(self, batch: Batch) -> bool:
        return batch.prefix_key is None or batch.prefix_key not in self._prefix_owner

    def _overdue(self, limit: int) -> _Entry | None:
        entry = _first(self._in_order)
        if entry is None:
            return None

        overtaken = self._placed - entry.placed_before
        return entry if overtaken > OVERDUE_FACTOR * limit else None

    def _owned(self, replica: str) -> _Entry | None:
        for key in reversed(self._prefixes_of.get(replica, {})):
            if key not in self._by_prefix:
                continue
            entry = _first(self._by_prefix[key])
            if entry is not None:
                return entry
            del self._by_prefix[key]
        return None

    def _first_unassigned(self) -> _Entry | None:
        while (entry := _first(self._unassigned)) is not None:
            if self._is_unassigned(entry.batch):
                return entry
            self._unassigned.popleft()  # its prefix has got an owner meanwhile
        return None

    def _assign(self, key: bytes, replica: str) -> None:
        self._prefix_owner[key] = replica
        prefixes = self._prefixes_of.setdefault(replica, OrderedDict())
        prefixes[key] = None
        prefixes.move_to_end(key)
        if len(prefixes) > PREFIXES_PER_REPLICA:
            oldest, _ = prefixes.popitem(last=False)
            self._unassign(oldest, replica)

    def _unassign(self, key: bytes, replica: str) -> None:
        if self._prefix_owner.get(key) != replica:
            return  # another replica owns the prefix since

        del self._prefix_owner[key]
        for entry in self._by_prefix.get(key, ()):
            if not entry.is_placed:
                self._unassigned.append(entry)


def _first(entries: deque[_Entry]) -> _Entry | None:
    while entries and entries[0].is_placed:
        entries.popleft()
    return entries[0] if entries else None
