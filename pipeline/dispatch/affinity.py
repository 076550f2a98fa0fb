"""Which waiting batch a replica gets: one whose prefix it holds already, before it steals from another.

A batch of a prefix_key (prompts that begin alike) is best run where the prefix_key ran before: its prefix
lies in that replica's cache. So a few batches may wait for their replica while others go ahead,
until so many wait that idling would cost more than computing the prefix once more. No batch is
passed over for ever. Knows names of replicas and numbers of batches: no Ray, no text.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from actors.protocol.messages import Batch

PREFIXES_HELD = 32  # of one replica: older ones have lost their pages to newer ones by now
PATIENCE = 4  # a batch that waited while so many times the limit went ahead is next, wherever


@dataclass(slots=True, eq=False)
class _Entry:
    batch: Batch
    taken_before: int  # batches handed out when this one came
    taken: bool = False


class Waiting:
    """Batches that were drawn and not yet placed, at most `limit` of them (as the caller keeps to it)."""

    def __init__(self) -> None:
        self._order: deque[_Entry] = deque()  # entries that are taken already are skipped
        self._unassigned: deque[_Entry] = deque()  # whose prefix_key no replica held when they came
        self._by_prefix: dict[bytes, deque[_Entry]] = {}
        self._prefix_owner: dict[bytes, str] = {}  # prefix_key → the replica that got it last
        # replica → its families, the latest last
        self._held: dict[str, OrderedDict[bytes, None]] = {}
        self._count = self._taken = 0

    def __len__(self) -> int:
        return self._count

    def add(self, batch: Batch) -> None:
        """Lets a batch wait."""
        entry = _Entry(batch, self._taken)
        self._count += 1
        self._order.append(entry)
        if batch.prefix_key is not None:
            self._by_prefix.setdefault(batch.prefix_key, deque()).append(entry)
        if batch.prefix_key is None or batch.prefix_key not in self._prefix_owner:
            self._unassigned.append(entry)

    def take(self, replica: str, limit: int, *, steal: bool) -> Batch | None:
        """Returns the batch that `replica` should run next, or None when those that wait are better run elsewhere.

        Args:
            replica: it has room for a batch.
            limit: most batches that may wait.
            steal: nothing else will come: take what is another replica's rather than nothing.
        """
        entry = self._overdue(limit) or self._own(replica) or self._first_unassigned()
        if entry is None and (steal or self._count >= limit):
            entry = _first(self._order)
        if entry is None:
            return None
        entry.taken = True
        self._count -= 1
        self._taken += 1
        self._settle(entry.batch.prefix_key, replica)
        return entry.batch

    def forget(self, replica: str) -> None:
        """The replica is gone, and with it what it held."""
        for prefix_key in self._held.pop(replica, ()):
            self._leave(prefix_key, replica)

    def _overdue(self, limit: int) -> _Entry | None:
        entry = _first(self._order)
        return (
            entry
            if entry is not None and self._taken - entry.taken_before > PATIENCE * limit
            else None
        )

    def _own(self, replica: str) -> _Entry | None:
        for prefix_key in reversed(self._held.get(replica, {})):
            if prefix_key in self._by_prefix:
                entry = _first(self._by_prefix[prefix_key])
                if entry is not None:
                    return entry
                del self._by_prefix[prefix_key]
        return None

    def _first_unassigned(self) -> _Entry | None:
        while (entry := _first(self._unassigned)) is not None:
            if entry.batch.prefix_key is None or entry.batch.prefix_key not in self._prefix_owner:
                return entry
            self._unassigned.popleft()  # another batch of its prefix_key has an owner by now
        return None

    def _settle(self, prefix_key: bytes | None, replica: str) -> None:
        if prefix_key is None:
            return
        held = self._held.setdefault(replica, OrderedDict())
        held[prefix_key] = None
        held.move_to_end(prefix_key)
        self._prefix_owner[prefix_key] = replica
        if len(held) > PREFIXES_HELD:
            self._leave(held.popitem(last=False)[0], replica)

    def _leave(self, prefix_key: bytes, replica: str) -> None:
        """Makes waiting batches of the prefix unassigned again, unless another replica owns it since."""
        if self._prefix_owner.get(prefix_key) == replica:
            del self._prefix_owner[prefix_key]
            self._unassigned.extend(
                entry for entry in self._by_prefix.get(prefix_key, ()) if not entry.taken
            )


def _first(entries: deque[_Entry]) -> _Entry | None:
    while entries and entries[0].taken:
        entries.popleft()
    return entries[0] if entries else None
