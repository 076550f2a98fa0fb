"""Pages of KV cache: which are free, who shares them, and which prompt prefix lies in them.

A page holds the keys and values of `page_size` consecutive tokens. A full page is
content-addressed: its key is a hash of all token ids up to its end, so equal keys mean equal
contents, whatever request computed them. Pages nobody uses keep their content until the room is
needed, least recently used first. Knows numbers only: arrays live in steps.py.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from actors.engine.sequence import PageTargets

PageKey = bytes


def page_keys(tokens: Sequence[int], page_size: int) -> list[PageKey]:
    """Returns the key of every full page of `tokens`, in order.

    A key covers everything before its page's end.
    """
    ids = array("i", tokens)
    keys: list[PageKey] = []
    parent = b""
    for end in range(page_size, len(ids) + 1, page_size):
        parent = blake2b(parent + ids[end - page_size : end].tobytes(), digest_size=16).digest()
        keys.append(parent)
    return keys


class PagePool:
    """Allocator of `pages` pages with reference counts, content keys and least-recently-used eviction.

    A page registered under a key may be shared before it is computed ("promised"): `ready` tells,
    and who shares it waits.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        # no content worth keeping; the lowest number is used first
        self._free = list(range(pages - 1, -1, -1))
        # unreferenced, content kept, oldest first
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * pages
        self._key_of: dict[int, PageKey] = {}
        self._page_of: dict[PageKey, int] = {}
        # of pages under a key; of others nobody can know
        self._targets: dict[int, PageTargets] = {}
        self._ready = bytearray(pages)

    @property
    def available(self) -> int:
        """Pages that could be allocated now, idle content given up."""
        return len(self._free) + len(self._idle)

    def match(self, keys: Sequence[PageKey]) -> list[int]:
        """Returns the pages that hold the longest known prefix of `keys`, without taking them."""
        found: list[int] = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def allocate(self, shared: Sequence[int], fresh: int) -> list[int] | None:
        """Takes a reference on each of `shared` and `fresh` new pages.

        Returns them all, or None when the room is lacking.
        """
        idle_shared = sum(1 for page in shared if self._references[page] == 0)
        if fresh > self.available - idle_shared:
            return None
        for page in shared:
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1
        return [*shared, *(self._take() for _ in range(fresh))]

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            self._forget(page)
        self._references[page] = 1
        self._ready[page] = 0
        return page

    def promise(self, page: int, key: PageKey, targets: PageTargets | None = None) -> None:
        """Registers `page` as the place where the content of `key` will lie.

        The first page promised for a key keeps it.

        `targets` says who will have read the log-probs of the page's tokens once it is ready, if anyone.
        """
        if key not in self._page_of:
            self._page_of[key] = page
            self._key_of[page] = key
            if targets is not None:
                self._targets[page] = targets

    def targets(self, page: int) -> PageTargets | None:
        """Returns who reads the log-probs of the tokens of `page`, if anyone does."""
        return self._targets.get(page)

    def _forget(self, page: int) -> None:
        self._targets.pop(page, None)
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._page_of[key]

    def mark_ready(self, page: int, *, ready: bool = True) -> None:
        """Says that the step about to run (or one before it) fills `page`, or that it does not after all."""
        self._ready[page] = ready

    def ready(self, page: int) -> bool:
        """Tells whether the content of `page` exists for every step from the next one on."""
        return bool(self._ready[page])

    def release(self, pages: Sequence[int]) -> None:
        """Gives back one reference on each of `pages`.

        Later pages of a prefix become idle first, so they are evicted first.
        """
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page] > 0:
                continue
            if self._ready[page] and page in self._key_of:
                self._idle[page] = None
            else:
                self._forget(page)
                self._free.append(page)
