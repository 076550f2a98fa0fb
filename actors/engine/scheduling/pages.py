"""Allocation of KV-cache pages: free pages, reference counts, and the prompt prefix in each page.

A page holds the keys and values of `page_size` consecutive tokens. A full page is
content-addressed: its key is a hash of all token ids up to its end, so equal keys mean equal
contents, whatever request computed them. Unreferenced pages keep their content until the room is
needed, least recently used first. The arrays themselves belong to programs.py.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from actors.engine.scheduling.hidden_states import PageStates
from actors.engine.scheduling.sequence import PageTargets

PageKey = bytes
KEY_BYTES = 16


def page_keys(tokens: Sequence[int], page_size: int) -> list[PageKey]:
    """Returns the key of every full page of `tokens`, in order.

    A key covers everything before its page's end.
    """
    ids = array("i", tokens)
    keys: list[PageKey] = []
    parent = b""
    for end in range(page_size, len(ids) + 1, page_size):
        content = parent + ids[end - page_size : end].tobytes()
        parent = blake2b(content, digest_size=KEY_BYTES).digest()
        keys.append(parent)
    return keys


class PagePool:
    """Allocator of pages with reference counts, content keys and least-recently-used eviction.

    A page registered under a key may be shared before it is computed ("promised"): a sequence that
    shares it waits until `ready` returns True.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        # pages without reusable content; the lowest number is used first
        self._free = list(range(pages - 1, -1, -1))
        # unreferenced pages with reusable content, least recently used first
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._references = [0] * pages
        self._key_of: dict[int, PageKey] = {}
        self._page_of: dict[PageKey, int] = {}
        # only pages with a key can have targets that another sequence may read
        self._targets: dict[int, PageTargets] = {}
        self._states: dict[int, PageStates] = {}
        self._ready = bytearray(pages)

    @property
    def available(self) -> int:
        """Pages that can be allocated now, idle ones included."""
        return len(self._free) + len(self._idle)

    def match(self, keys: Sequence[PageKey]) -> list[int]:
        """Returns the pages of the longest registered prefix of `keys`; takes no reference."""
        matched: list[int] = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            matched.append(page)
        return matched

    def allocate(self, shared: Sequence[int], fresh: int) -> list[int] | None:
        """Takes a reference on each of `shared` and on `fresh` new pages.

        Returns all of them, or None where too few pages are available.
        """
        idle_shared = [page for page in shared if self._references[page] == 0]
        if fresh > self.available - len(idle_shared):
            return None

        for page in idle_shared:
            del self._idle[page]
        for page in shared:
            self._references[page] += 1

        new_pages = [self._take() for _ in range(fresh)]
        return [*shared, *new_pages]

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            self._forget(page)
        self._references[page] = 1
        self._ready[page] = 0
        return page

    def promise(
        self,
        page: int,
        key: PageKey,
        targets: PageTargets | None = None,
        states: PageStates | None = None,
    ) -> None:
        """Registers `page` as the place where the content of `key` will be computed.

        The first page promised for a key keeps it. `targets` are the targets that will hold the
        log-probs of the page's tokens once it is ready, `states` what will be kept of their hidden
        states, if there are any.
        """
        if key in self._page_of:
            return
        self._page_of[key] = page
        self._key_of[page] = key
        if targets is not None:
            self._targets[page] = targets
        if states is not None:
            self._states[page] = states

    def targets(self, page: int) -> PageTargets | None:
        """Returns the targets that hold the log-probs of the tokens of `page`, if there are any."""
        return self._targets.get(page)

    def states(self, page: int) -> PageStates | None:
        """Returns what is kept of the hidden states of the tokens of `page`, if anything is."""
        return self._states.get(page)

    def _forget(self, page: int) -> None:
        self._targets.pop(page, None)
        self._states.pop(page, None)
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._page_of[key]

    def mark_ready(self, page: int, *, ready: bool = True) -> None:
        """Records whether the call about to run, or one before it, fills `page`."""
        self._ready[page] = ready

    def ready(self, page: int) -> bool:
        """Returns whether the content of `page` exists for every call from the next one on."""
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
