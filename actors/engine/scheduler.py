"""Decides what the next extend and the next decode compute. Numbers and lists only: no arrays on devices, no JAX.

Sequences wait until a lane has pages (and, to generate, a slot) for all they can grow to; then they extend, oldest first, and
decode side by side until they end. Sequences join and leave between any two calls.

An extend computes rows of `block` tokens. A long prompt fills several rows of one call, or of several calls; a short one pads
its last row at most. So one shape serves all lengths, and only the number of rows and the width of the page table vary, each
on a short ladder: few programs are compiled, whatever the data.

    call of 4 rows x 4 tokens     prompt a: ████ ████ ██··    prompt b: ███·     · padding

A lane is one position along the mesh's data axis: it has its own pages and slots, and its own rows in every call.
"""

from collections import deque
from dataclasses import dataclass

from actors.engine.config import EngineConfig
from actors.engine.pages import PagePool, page_keys
from actors.engine.sequence import Sequence

RUNGS_APART = 4  # neighbouring rungs of rows and of widths differ by this factor: padding rows and pages are cheap, programs not
NARROWEST = 64  # tokens that the narrowest page table reaches


@dataclass(frozen=True, slots=True)
class Piece:
    """One row of an extend call: tokens [start, start + count) of a sequence."""

    sequence: Sequence
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class ExtendPlan:
    """Rows of one extend call, per lane, and the shape it is compiled for."""

    lanes: list[list[Piece]]
    rows: int  # of one lane
    width: int  # page-table entries of a row


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Sequences of one decode call, per lane, and the shape it is compiled for."""

    lanes: list[list[Sequence]]
    rows: int  # of one lane
    width: int  # page-table entries of a row


def ladder_rung(value: int, lowest: int, highest: int) -> int:
    """Returns the smallest of lowest, 4 lowest, 16 lowest, …, highest that is at least `value`."""
    rung = lowest
    while rung < value:
        rung *= RUNGS_APART
    return min(rung, highest)


def call_rows(wanted: int, highest: int) -> int:
    """Returns the rows of an extend call for `wanted` rows: the rung above, or the one below if more than half would be empty."""
    above, below = ladder_rung(wanted, 1, highest), 1
    while below * RUNGS_APART <= wanted:
        below *= RUNGS_APART
    return above if 2 * wanted >= above else below


class Scheduler:
    """Admission, chunking and batching of sequences over the lanes of one engine."""

    def __init__(self, config: EngineConfig, lanes: int, pages_per_lane: int) -> None:
        self.config = config
        self.pools = [PagePool(pages_per_lane) for _ in range(lanes)]
        self.extend_rows = max(1, config.batch_tokens // (config.block * lanes))
        self.decode_rows = max(1, config.slots // lanes)
        self._widest = -(-config.max_len // config.page_size)
        self._narrowest = max(1, min(self._widest, NARROWEST // config.page_size))
        self._waiting: deque[Sequence] = deque()
        self._extending: list[list[Sequence]] = [[] for _ in range(lanes)]
        self._decoding: list[list[Sequence]] = [[] for _ in range(lanes)]
        self._slots_used = [0] * lanes

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not any(self._extending) and not any(self._decoding)

    def capacity(self) -> int:
        """Tokens of the longest sequence that one lane can ever hold."""
        return self.pools[0].pages * self.config.page_size

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        self._waiting.append(sequence)

    def admit(self) -> None:
        """Gives waiting sequences pages and slots, in order, until the first that finds no room."""
        while self._waiting and self._place(self._waiting[0]):
            sequence = self._waiting.popleft()
            queue = self._decoding if sequence.extended else self._extending
            queue[sequence.lane].append(sequence)

    def _place(self, sequence: Sequence) -> bool:
        size = self.config.page_size
        keys = page_keys(sequence.tokens[: sequence.goal].tolist(), size) if self.config.reuse_prefixes else []
        reusable = keys[: sequence.reusable // size]
        matches = [pool.match(reusable) for pool in self.pools]
        merit = sorted(range(len(self.pools)), key=lambda lane: (-len(matches[lane]), -self.pools[lane].available, lane))
        for lane in merit:
            if sequence.drawn is not None and self._slots_used[lane] >= self.decode_rows:
                continue
            total = -(-sequence.longest // size)
            pages = self.pools[lane].allocate(matches[lane], total - len(matches[lane]))
            if pages is not None:
                self._settle(sequence, lane, pages, len(matches[lane]), keys)
                return True
        return False

    def _settle(self, sequence: Sequence, lane: int, pages: list[int], shared: int, keys: list[bytes]) -> None:
        sequence.lane, sequence.pages, sequence.shared = lane, pages, shared
        sequence.computed = shared * self.config.page_size
        self._slots_used[lane] += sequence.drawn is not None
        for page, key in zip(pages[shared : len(keys)], keys[shared:], strict=True):
            self.pools[lane].promise(page, key)

    def _runnable(self, sequence: Sequence) -> bool:
        """Whether all pages it shares are filled by now, or by the call being planned (keys are written before they are read)."""
        pool = self.pools[sequence.lane]
        return all(pool.ready(page) for page in sequence.pages[: sequence.shared])

    def _width(self, tokens: int) -> int:
        return ladder_rung(-(-tokens // self.config.page_size), self._narrowest, self._widest)

    def _reach(self, sequence: Sequence) -> int:
        """Tokens in the cache once the next call has extended `sequence` as far as it can."""
        return min(sequence.goal, sequence.computed + self.extend_rows * self.config.block)

    def next_extend(self) -> ExtendPlan | None:
        """Returns the next extend call, or None when there is none. Pages that it fills count as filled from now on."""
        oldest = next((s for lane in self._extending for s in lane if self._runnable(s)), None)
        if oldest is None:
            return None
        width = self._width(self._reach(oldest))
        lanes = [self._fill_rows(lane, width) for lane in range(len(self.pools))]
        rows = call_rows(max(len(pieces) for pieces in lanes), self.extend_rows)
        for pieces in lanes:
            for piece in pieces[rows:]:  # they come first in the next call
                self._fill_pages(piece, filled=False)
        return ExtendPlan(lanes=[pieces[:rows] for pieces in lanes], rows=rows, width=width)

    def _fill_rows(self, lane: int, width: int) -> list[Piece]:
        """Takes rows of sequences that need just this width, oldest first, then of narrower ones while there is room."""
        pieces: list[Piece] = []
        for exact in (True, False):
            for sequence in self._extending[lane]:
                own = self._width(self._reach(sequence))
                if len(pieces) < self.extend_rows and (own == width if exact else own < width) and self._runnable(sequence):
                    pieces += self._cut(sequence, self.extend_rows - len(pieces))
        return pieces

    def _cut(self, sequence: Sequence, rows: int) -> list[Piece]:
        """Cuts up to `rows` rows off what is left of `sequence`; the pages that they fill count as filled."""
        block = self.config.block
        end = min(sequence.goal, sequence.computed + rows * block)
        pieces = [Piece(sequence, at, min(block, end - at)) for at in range(sequence.computed, end, block)]
        for piece in pieces:
            self._fill_pages(piece, filled=True)
        return pieces

    def _fill_pages(self, piece: Piece, *, filled: bool) -> None:
        size, sequence = self.config.page_size, piece.sequence
        for page in sequence.pages[piece.start // size : (piece.start + piece.count) // size]:
            self.pools[sequence.lane].mark_ready(page, ready=filled)

    def extended(self, plan: ExtendPlan) -> list[Sequence]:
        """Books an extend call as done; returns the sequences with nothing left to compute or draw."""
        over: list[Sequence] = []
        for piece in (piece for pieces in plan.lanes for piece in pieces):
            sequence = piece.sequence
            sequence.computed = piece.start + piece.count
            if not sequence.extended:
                continue
            self._extending[sequence.lane].remove(sequence)
            if sequence.drawn is None:
                over.append(sequence)
            else:
                self._decoding[sequence.lane].append(sequence)
        return over

    def next_decode(self) -> DecodePlan | None:
        """Returns the next decode call, or None when no sequence is ready to draw."""
        if not any(self._decoding):
            return None
        steps = self.config.decode_steps
        reach = max(min(s.computed + steps, s.longest) for lane in self._decoding for s in lane)
        rows = ladder_rung(max(len(lane) for lane in self._decoding), 1, self.decode_rows)
        return DecodePlan(lanes=[list(lane) for lane in self._decoding], rows=rows, width=self._width(reach))

    def release(self, sequence: Sequence) -> None:
        """Gives back the pages and the slot of a sequence that has ended."""
        self.pools[sequence.lane].release(sequence.pages)
        if sequence.drawn is not None:
            self._slots_used[sequence.lane] -= 1
            self._decoding[sequence.lane].remove(sequence)
        sequence.pages = []
