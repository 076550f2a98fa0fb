"""Decides what the next prefill and the next decode compute.

Numbers and lists only: no arrays on devices, no JAX.

Sequences wait until a data shard has pages (and, to generate, a slot) for all they can grow to; then they
prefill, oldest first, and decode side by side until they end. Sequences join and leave between any
two calls.

A prefill computes rows of `chunk` tokens. A long prompt fills several rows of one call, or of
several calls; a short one pads its last row at most. So one shape serves all lengths, and only the
number of rows and the width of the page table vary, each in a few size buckets: few programs are
compiled, whatever the data.

    call of 4 rows x 4 tokens     prompt a: ████ ████ ██··    prompt b: ███·     · padding

A data shard is one position along the mesh's data axis: it has its own pages and slots, and its own rows
in every call.
"""

from collections import deque
from dataclasses import dataclass

from actors.engine.config import EngineConfig
from actors.engine.pages import PagePool, page_keys
from actors.engine.sequence import PageTargets, Sequence
from actors.engine.sharing import NO_SHARED_PREFIX, SharedPrefix, find_shared_prefix

MIN_ROWS = 8  # of a call: fewer rows take as long, the weights are read all the same
ROW_FACTOR = 2  # neighbouring bucket sizes of rows differ by this factor
MOST_EMPTY = 8  # a call with more than 1 / 8 of its rows empty is cut in two
MIN_WIDTH_TOKENS = 64  # tokens that the narrowest page table reaches
WIDTH_FACTOR = 4  # neighbouring bucket sizes of widths differ by this factor


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """One row of a prefill call: tokens [start, start + count) of a sequence."""

    sequence: Sequence
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """Rows of one prefill call, per data shard, and the shape it is compiled for."""

    data_shards: list[list[PrefillChunk]]
    rows: int  # of one data shard
    width: int  # page-table entries of a row


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """Sequences of one decode call, per data shard, and the shape it is compiled for."""

    data_shards: list[list[Sequence]]
    rows: int  # of one data shard
    width: int  # page-table entries of a row


def geometric_sizes(lowest: int, highest: int, apart: int) -> list[int]:
    """Returns lowest, apart x lowest, apart^2 x lowest, …, highest."""
    found = [min(lowest, highest)]
    while found[-1] < highest:
        found.append(min(found[-1] * apart, highest))
    return found


def row_buckets(highest: int) -> list[int]:
    """Returns the numbers of rows that calls are compiled for."""
    return geometric_sizes(MIN_ROWS, highest, ROW_FACTOR)


def width_buckets(config: EngineConfig, *, one_width: bool) -> list[int]:
    """Returns the widths of page tables that calls are compiled for, in pages.

    One is enough where width costs nothing.
    """
    widest = -(-config.max_len // config.page_size)
    return geometric_sizes(
        widest if one_width else max(1, MIN_WIDTH_TOKENS // config.page_size), widest, WIDTH_FACTOR
    )


def bucket_size(value: int, sizes: list[int]) -> int:
    """Returns the smallest bucket_size that is at least `value`, the last one if none is."""
    return next((each for each in sizes if each >= value), sizes[-1])


def call_rows(wanted: int, sizes: list[int]) -> int:
    """Returns the rows of a prefill call for `wanted` rows: the bucket size above, or the one below if too many would be empty."""
    above = bucket_size(wanted, sizes)
    if above == sizes[0] or (above - wanted) * MOST_EMPTY <= above:
        return above
    return max(each for each in sizes if each <= wanted)


class Scheduler:
    """Admission, chunking and batching of sequences over the data shards of one engine."""

    def __init__(
        self,
        config: EngineConfig,
        data_shards: int,
        pages_per_data_shard: int,
        *,
        one_width: bool = False,
    ) -> None:
        self.config = config
        self.pools = [PagePool(pages_per_data_shard) for _ in range(data_shards)]
        self.prefill_rows = max(1, config.batch_tokens // (config.chunk * data_shards))
        self.decode_rows = max(1, config.slots // data_shards)
        self._prefill_row_buckets, self._decode_row_buckets = (
            row_buckets(self.prefill_rows),
            row_buckets(self.decode_rows),
        )
        self._widths = width_buckets(config, one_width=one_width)
        self._waiting: deque[Sequence] = deque()
        self._prefilling: list[list[Sequence]] = [[] for _ in range(data_shards)]
        self._decoding: list[list[Sequence]] = [[] for _ in range(data_shards)]
        self._slots_used = [0] * data_shards

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not any(self._prefilling) and not any(self._decoding)

    def capacity(self) -> int:
        """Tokens of the longest sequence that one data shard can ever hold."""
        return self.pools[0].pages * self.config.page_size

    def submit(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        self._waiting.append(sequence)

    def admit(self) -> None:
        """Gives waiting sequences pages and slots, in order, until the first that finds no room."""
        while self._waiting and self._place(self._waiting[0]):
            sequence = self._waiting.popleft()
            queue = self._decoding if sequence.prefilled else self._prefilling
            queue[sequence.data_shard].append(sequence)

    def _place(self, sequence: Sequence) -> bool:
        size = self.config.page_size
        keys = (
            page_keys(sequence.tokens[: sequence.goal].tolist(), size)
            if self.config.reuse_prefixes
            else []
        )
        shares = [find_shared_prefix(sequence, pool, pool.match(keys), size) for pool in self.pools]
        merit = sorted(
            range(len(self.pools)),
            key=lambda data_shard: (
                -len(shares[data_shard].pages),
                -self.pools[data_shard].available,
                data_shard,
            ),
        )
        for data_shard in merit:
            if sequence.generation is not None and self._slots_used[data_shard] >= self.decode_rows:
                continue
            total, share = -(-sequence.longest // size), shares[data_shard]
            if total + len(share.score_pages) > self.pools[data_shard].pages:
                # it fills the whole cache: there is no room for a page that is only read from
                share = NO_SHARED_PREFIX
            pages = self.pools[data_shard].allocate(share.held, total - len(share.pages))
            if pages is not None:
                self._settle(sequence, data_shard, pages, share, keys)
                return True
        return False

    def _settle(
        self,
        sequence: Sequence,
        data_shard: int,
        pages: list[int],
        share: SharedPrefix,
        keys: list[bytes],
    ) -> None:
        size, shared = self.config.page_size, len(share.pages)
        sequence.data_shard, sequence.shared, sequence.shared_scores, sequence.score_pages = (
            data_shard,
            shared,
            share.scores,
            share.score_pages,
        )
        sequence.pages = pages[:shared] + pages[len(share.held) :]
        sequence.computed = shared * size
        self._slots_used[data_shard] += sequence.generation is not None
        asking = sequence.targets.asking_for(sequence.tokens[: sequence.goal])
        for number in range(shared, len(keys)):
            index = asking[number * size : (number + 1) * size]
            # the first token of all is predicted by nothing
            read = bool((index[number == 0 :] >= 0).all())
            self.pools[data_shard].promise(
                sequence.pages[number],
                keys[number],
                PageTargets(sequence.targets, index) if read else None,
            )

    def _runnable(self, sequence: Sequence) -> bool:
        """Whether all pages it shares are filled by now, or by the call being planned (keys are written before they are read)."""
        if sequence.computed > sequence.shared * self.config.page_size:
            return True  # it has run before, on the same pages
        pool = self.pools[sequence.data_shard]
        return all(
            pool.ready(page) for page in (*sequence.pages[: sequence.shared], *sequence.score_pages)
        )

    def _width(self, tokens: int) -> int:
        return bucket_size(-(-tokens // self.config.page_size), self._widths)

    def _reach(self, sequence: Sequence) -> int:
        """Tokens in the cache once the next call has prefilled `sequence` as far as it can."""
        return min(sequence.goal, sequence.computed + self.prefill_rows * self.config.chunk)

    def next_prefill(self) -> PrefillPlan | None:
        """Returns the next prefill call, or None when there is none.

        Pages that it fills count as filled from now on.
        """
        oldest = next(
            (s for data_shard in self._prefilling for s in data_shard if self._runnable(s)), None
        )
        if oldest is None:
            return None
        width = self._width(self._reach(oldest))
        data_shards = [self._fill_rows(data_shard, width) for data_shard in range(len(self.pools))]
        rows = call_rows(max(len(pieces) for pieces in data_shards), self._prefill_row_buckets)
        for pieces in data_shards:
            for piece in pieces[rows:]:  # they come first in the next call
                self._fill_pages(piece, filled=False)
        return PrefillPlan(
            data_shards=[pieces[:rows] for pieces in data_shards], rows=rows, width=width
        )

    def _fill_rows(self, data_shard: int, width: int) -> list[PrefillChunk]:
        """Takes rows of sequences that need just this width, oldest first, then of narrower ones while there is room."""
        pieces: list[PrefillChunk] = []
        for exact in (True, False):
            for sequence in self._prefilling[data_shard]:
                own = self._width(self._reach(sequence))
                if (
                    len(pieces) < self.prefill_rows
                    and (own == width if exact else own < width)
                    and self._runnable(sequence)
                ):
                    pieces += self._cut(sequence, self.prefill_rows - len(pieces))
        return pieces

    def _cut(self, sequence: Sequence, rows: int) -> list[PrefillChunk]:
        """Cuts up to `rows` rows off what is left of `sequence`.

        The pages that they fill count as filled.
        """
        chunk = self.config.chunk
        end = min(sequence.goal, sequence.computed + rows * chunk)
        pieces = [
            PrefillChunk(sequence, at, min(chunk, end - at))
            for at in range(sequence.computed, end, chunk)
        ]
        for piece in pieces:
            self._fill_pages(piece, filled=True)
        return pieces

    def _fill_pages(self, piece: PrefillChunk, *, filled: bool) -> None:
        size, sequence = self.config.page_size, piece.sequence
        for page in sequence.pages[piece.start // size : (piece.start + piece.count) // size]:
            self.pools[sequence.data_shard].mark_ready(page, ready=filled)

    def finish_prefill(self, plan: PrefillPlan) -> list[Sequence]:
        """Books a prefill call as done.

        Returns the sequences with nothing left to compute or draw.
        """
        over: list[Sequence] = []
        for piece in (piece for pieces in plan.data_shards for piece in pieces):
            sequence = piece.sequence
            sequence.computed = piece.start + piece.count
            if not sequence.prefilled:
                continue
            self._prefilling[sequence.data_shard].remove(sequence)
            if sequence.generation is None:
                over.append(sequence)
            else:
                self._decoding[sequence.data_shard].append(sequence)
        return over

    def next_decode(self) -> DecodePlan | None:
        """Returns the next decode call, or None when no sequence is ready to draw."""
        # a prompt that is wholly shared waits here, too, until whoever computes it has filled the
        # last page
        data_shards = [
            [sequence for sequence in data_shard if self._runnable(sequence)]
            for data_shard in self._decoding
        ]
        if not any(data_shards):
            return None
        reach = max(
            min(s.computed + self.config.decode_steps, s.longest)
            for data_shard in data_shards
            for s in data_shard
        )
        rows = bucket_size(
            max(len(data_shard) for data_shard in data_shards), self._decode_row_buckets
        )
        return DecodePlan(data_shards=data_shards, rows=rows, width=self._width(reach))

    def release(self, sequence: Sequence) -> None:
        """Gives back the pages and the slot of a sequence that has ended."""
        self.pools[sequence.data_shard].release([*sequence.pages, *sequence.score_pages])
        if sequence.generation is not None:
            self._slots_used[sequence.data_shard] -= 1
            self._decoding[sequence.data_shard].remove(sequence)
        sequence.pages, sequence.score_pages = [], []
