"""Which replicas may compile: one of those that share a cache first, the others once it is done.

The others find its programs in the cache. They load weights meanwhile. Does not depend on Ray.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Cache:
    """The replicas that share a cache of programs."""

    first: str | None = None  # the replica that compiles
    is_filled: bool = False
    waiting: list[str] = field(default_factory=list)


class CompileTurns:
    """Gives the turn to compile to one replica of each cache after the other."""

    def __init__(self) -> None:
        self._caches: dict[str, _Cache] = {}

    def join(self, replica: str, cache: str) -> bool:
        """Adds a replica that shares a cache; returns whether it may compile at once."""
        state = self._caches.setdefault(cache, _Cache())
        if state.is_filled:
            return True
        if state.first is None:
            state.first = replica
            return True
        state.waiting.append(replica)
        return False

    def is_first(self, replica: str) -> bool:
        """Returns whether others wait, or will wait, for the programs of a replica."""
        return any(state.first == replica for state in self._caches.values())

    def filled(self, replica: str) -> list[str]:
        """Records that a replica has compiled its programs; returns those that may compile now."""
        for state in self._caches.values():
            if state.first == replica:
                state.first = None
                state.is_filled = True
                allowed = state.waiting
                state.waiting = []
                return allowed
        return []

    def forget(self, replica: str) -> list[str]:
        """Removes a replica that is gone; returns the one that compiles in its place, if any."""
        for state in self._caches.values():
            if replica in state.waiting:
                state.waiting.remove(replica)
            if state.first == replica:
                state.first = None
                if state.waiting:
                    state.first = state.waiting.pop(0)
                    return [state.first]
        return []
