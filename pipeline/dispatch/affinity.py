"""Which waiting batch a replica gets: one whose prefix it holds already, before it steals from another.

A batch of a family (prompts that begin alike) is best run where the family ran before: its prefix
lies in that replica's cache. So a few batches may wait for their replica while others go ahead,
until so many wait that idling would cost more than computing the prefix once more. No batch is
passed over for ever. Knows names of replicas and numbers of batches: no Ray, no text.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from actors.protocol.messages import Batch

FAMILIES_HELD = 32  # of one replica: older ones have lost their pages to newer ones by now
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
        self._strangers: deque[_Entry] = deque()  # whose family no replica held when they came
        self._families: dict[bytes, deque[_Entry]] = {}
        self._home: dict[bytes, str] = {}  # family → the replica that got it last
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
        if batch.family is not None:
            self._families.setdefault(batch.family, deque()).append(entry)
        if batch.family is None or batch.family not in self._home:
            self._strangers.append(entry)

    def take(self, replica: str, limit: int, *, steal: bool) -> Batch | None:
        """Returns the batch that `replica` should run next, or None when those that wait are better run elsewhere.

        Args:
            replica: it has room for a batch.
            limit: most batches that may wait.
            steal: nothing else will come: take what is another replica's rather than nothing.
        """
        entry = self._overdue(limit) or self._own(replica) or self._stranger()
        if entry is None and (steal or self._count >= limit):
            entry = _first(self._order)
        if entry is None:
            return None
        entry.taken = True
        self._count -= 1
        self._taken += 1
        self._settle(entry.batch.family, replica)
        return entry.batch

    def forget(self, replica: str) -> None:
        """The replica is gone, and with it what it held."""
        for family in self._held.pop(replica, ()):
            self._leave(family, replica)

    def _overdue(self, limit: int) -> _Entry | None:
        entry = _first(self._order)
        return (
            entry
            if entry is not None and self._taken - entry.taken_before > PATIENCE * limit
            else None
        )

    def _own(self, replica: str) -> _Entry | None:
        for family in reversed(self._held.get(replica, {})):
            if family in self._families:
                entry = _first(self._families[family])
                if entry is not None:
                    return entry
                del self._families[family]
        return None

    def _stranger(self) -> _Entry | None:
        while (entry := _first(self._strangers)) is not None:
            if entry.batch.family is None or entry.batch.family not in self._home:
                return entry
            self._strangers.popleft()  # another batch of its family found a home meanwhile
        return None

    def _settle(self, family: bytes | None, replica: str) -> None:
        if family is None:
            return
        held = self._held.setdefault(replica, OrderedDict())
        held[family] = None
        held.move_to_end(family)
        self._home[family] = replica
        if len(held) > FAMILIES_HELD:
            self._leave(held.popitem(last=False)[0], replica)

    def _leave(self, family: bytes, replica: str) -> None:
        """Another batch of the family is a stranger again, unless another replica got the family since."""
        if self._home.get(family) == replica:
            del self._home[family]
            self._strangers.extend(
                entry for entry in self._families.get(family, ()) if not entry.taken
            )


def _first(entries: deque[_Entry]) -> _Entry | None:
    while entries and entries[0].taken:
        entries.popleft()
    return entries[0] if entries else None
