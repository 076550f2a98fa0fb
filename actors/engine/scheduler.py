"""Decides what the next extend and the next decode compute.

Numbers and lists only: no arrays on devices, no JAX.

Sequences wait until a lane has pages (and, to generate, a slot) for all they can grow to; then they
extend, oldest first, and decode side by side until they end. Sequences join and leave between any
two calls.

An extend computes rows of `block` tokens. A long prompt fills several rows of one call, or of
several calls; a short one pads its last row at most. So one shape serves all lengths, and only the
number of rows and the width of the page table vary, each on a short ladder: few programs are
compiled, whatever the data.

    call of 4 rows x 4 tokens     prompt a: ████ ████ ██··    prompt b: ███·     · padding

A lane is one position along the mesh's data axis: it has its own pages and slots, and its own rows
in every call.
"""

from collections import deque
from dataclasses import dataclass

from actors.engine.config import EngineConfig
from actors.engine.pages import PagePool, page_keys
from actors.engine.sequence import PageTargets, Sequence
from actors.engine.sharing import NOTHING, Share, find_share

FEWEST_ROWS = 8  # of a call: fewer rows take as long, the weights are read all the same
ROWS_APART = 2  # neighbouring rungs of rows differ by this factor
MOST_EMPTY = 8  # a call with more than 1 / 8 of its rows empty is cut in two
NARROWEST = 64  # tokens that the narrowest page table reaches
WIDTHS_APART = 4  # neighbouring rungs of widths differ by this factor


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


def rungs(lowest: int, highest: int, apart: int) -> list[int]:
    """Returns lowest, apart x lowest, apart^2 x lowest, …, highest."""
    found = [min(lowest, highest)]
    while found[-1] < highest:
        found.append(min(found[-1] * apart, highest))
    return found


def row_rungs(highest: int) -> list[int]:
    """Returns the numbers of rows that calls are compiled for."""
    return rungs(FEWEST_ROWS, highest, ROWS_APART)


def width_rungs(config: EngineConfig, *, one_width: bool) -> list[int]:
    """Returns the widths of page tables that calls are compiled for, in pages.

    One is enough where width costs nothing.
    """
    widest = -(-config.max_len // config.page_size)
    return rungs(
        widest if one_width else max(1, NARROWEST // config.page_size), widest, WIDTHS_APART
    )


def rung(value: int, ladder: list[int]) -> int:
    """Returns the smallest rung that is at least `value`, the last one if none is."""
    return next((each for each in ladder if each >= value), ladder[-1])


def call_rows(wanted: int, ladder: list[int]) -> int:
    """Returns the rows of an extend call for `wanted` rows: the rung above, or the one below if too many would be empty."""
    above = rung(wanted, ladder)
    if above == ladder[0] or (above - wanted) * MOST_EMPTY <= above:
        return above
    return max(each for each in ladder if each <= wanted)


class Scheduler:
    """Admission, chunking and batching of sequences over the lanes of one engine."""

    def __init__(
        self, config: EngineConfig, lanes: int, pages_per_lane: int, *, one_width: bool = False
    ) -> None:
        self.config = config
        self.pools = [PagePool(pages_per_lane) for _ in range(lanes)]
        self.extend_rows = max(1, config.batch_tokens // (config.block * lanes))
        self.decode_rows = max(1, config.slots // lanes)
        self._extend_ladder, self._decode_ladder = (
            row_rungs(self.extend_rows),
            row_rungs(self.decode_rows),
        )
        self._widths = width_rungs(config, one_width=one_width)
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
        keys = (
            page_keys(sequence.tokens[: sequence.goal].tolist(), size)
            if self.config.reuse_prefixes
            else []
        )
        shares = [find_share(sequence, pool, pool.match(keys), size) for pool in self.pools]
        merit = sorted(
            range(len(self.pools)),
            key=lambda lane: (-len(shares[lane].pages), -self.pools[lane].available, lane),
        )
        for lane in merit:
            if sequence.drawn is not None and self._slots_used[lane] >= self.decode_rows:
                continue
            total, share = -(-sequence.longest // size), shares[lane]
            if total + len(share.lending) > self.pools[lane].pages:
                # it fills the whole cache: there is no room for a page that is only read from
                share = NOTHING
            pages = self.pools[lane].allocate(share.held, total - len(share.pages))
            if pages is not None:
                self._settle(sequence, lane, pages, share, keys)
                return True
        return False

    def _settle(
        self, sequence: Sequence, lane: int, pages: list[int], share: Share, keys: list[bytes]
    ) -> None:
        size, shared = self.config.page_size, len(share.pages)
        sequence.lane, sequence.shared, sequence.loans, sequence.lending = (
            lane,
            shared,
            share.loans,
            share.lending,
        )
        sequence.pages = pages[:shared] + pages[len(share.held) :]
        sequence.computed = shared * size
        self._slots_used[lane] += sequence.drawn is not None
        asking = sequence.targets.asking_for(sequence.tokens[: sequence.goal])
        for number in range(shared, len(keys)):
            index = asking[number * size : (number + 1) * size]
            # the first token of all is predicted by nothing
            read = bool((index[number == 0 :] >= 0).all())
            self.pools[lane].promise(
                sequence.pages[number],
                keys[number],
                PageTargets(sequence.targets, index) if read else None,
            )

    def _runnable(self, sequence: Sequence) -> bool:
        """Whether all pages it shares are filled by now, or by the call being planned (keys are written before they are read)."""
        if sequence.computed > sequence.shared * self.config.page_size:
            return True  # it has run before, on the same pages
        pool = self.pools[sequence.lane]
        return all(
            pool.ready(page) for page in (*sequence.pages[: sequence.shared], *sequence.lending)
        )

    def _width(self, tokens: int) -> int:
        return rung(-(-tokens // self.config.page_size), self._widths)

    def _reach(self, sequence: Sequence) -> int:
        """Tokens in the cache once the next call has extended `sequence` as far as it can."""
        return min(sequence.goal, sequence.computed + self.extend_rows * self.config.block)

    def next_extend(self) -> ExtendPlan | None:
        """Returns the next extend call, or None when there is none.

        Pages that it fills count as filled from now on.
        """
        oldest = next((s for lane in self._extending for s in lane if self._runnable(s)), None)
        if oldest is None:
            return None
        width = self._width(self._reach(oldest))
        lanes = [self._fill_rows(lane, width) for lane in range(len(self.pools))]
        rows = call_rows(max(len(pieces) for pieces in lanes), self._extend_ladder)
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
                if (
                    len(pieces) < self.extend_rows
                    and (own == width if exact else own < width)
                    and self._runnable(sequence)
                ):
                    pieces += self._cut(sequence, self.extend_rows - len(pieces))
        return pieces

    def _cut(self, sequence: Sequence, rows: int) -> list[Piece]:
        """Cuts up to `rows` rows off what is left of `sequence`.

        The pages that they fill count as filled.
        """
        block = self.config.block
        end = min(sequence.goal, sequence.computed + rows * block)
        pieces = [
            Piece(sequence, at, min(block, end - at)) for at in range(sequence.computed, end, block)
        ]
        for piece in pieces:
            self._fill_pages(piece, filled=True)
        return pieces

    def _fill_pages(self, piece: Piece, *, filled: bool) -> None:
        size, sequence = self.config.page_size, piece.sequence
        for page in sequence.pages[piece.start // size : (piece.start + piece.count) // size]:
            self.pools[sequence.lane].mark_ready(page, ready=filled)

    def extended(self, plan: ExtendPlan) -> list[Sequence]:
        """Books an extend call as done.

        Returns the sequences with nothing left to compute or draw.
        """
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
        # a prompt that is wholly shared waits here, too, until whoever computes it has filled the
        # last page
        lanes = [
            [sequence for sequence in lane if self._runnable(sequence)] for lane in self._decoding
        ]
        if not any(lanes):
            return None
        reach = max(
            min(s.computed + self.config.decode_steps, s.longest) for lane in lanes for s in lane
        )
        rows = rung(max(len(lane) for lane in lanes), self._decode_ladder)
        return DecodePlan(lanes=lanes, rows=rows, width=self._width(reach))

    def release(self, sequence: Sequence) -> None:
        """Gives back the pages and the slot of a sequence that has ended."""
        self.pools[sequence.lane].release([*sequence.pages, *sequence.lending])
        if sequence.drawn is not None:
            self._slots_used[sequence.lane] -= 1
            self._decoding[sequence.lane].remove(sequence)
        sequence.pages, sequence.lending = [], []
