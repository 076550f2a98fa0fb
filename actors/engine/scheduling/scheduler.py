"""Decides what the next prefill and the next decode compute.

Numbers and lists only: no arrays on devices, no JAX.

Sequences wait until a data shard has pages (and, to generate, a slot) for all they can grow to.
Then they prefill, oldest first, and decode side by side until they end. Sequences join and leave
between any two calls.

A call counts as run once it is dispatched: devices run calls in order, so the next one may use its
pages, and pages that are released. Decode is counted as if no sequence ended before its length.

A prefill computes rows of `chunk` tokens. A long prompt fills several rows of one call, or of
several calls; a short one pads its last row at most. So one shape serves all lengths, and only the
number of rows and the width of the page table vary, each in a few size buckets: few programs are
compiled, whatever the data.

    call of 4 rows x 4 tokens     prompt a: ████ ████ ██··    prompt b: ███·     · padding

A data shard is one position along the mesh's data axis: it has its own pages and slots, and its own
rows in every call.
"""

from collections import deque
from dataclasses import dataclass
from itertools import chain

from actors.engine.config import EngineConfig
from actors.engine.scheduling.call_order import Backlog, decode_waits, prefill_waits
from actors.engine.scheduling.call_sizes import bucket_size, call_sizes, pages_for
from actors.engine.scheduling.pages import PageKey, PagePool, page_keys
from actors.engine.scheduling.sequence import PageTargets, Sequence
from actors.engine.scheduling.sharing import NO_SHARED_PREFIX, SharedPrefix, find_shared_prefix


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """One row of a prefill call: tokens [start, start + count) of a sequence."""

    sequence: Sequence
    start: int
    count: int

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + self.count


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


def _remaining_tokens(sequences: list[Sequence]) -> int:
    """Returns the tokens that prefill has still to compute for sequences of a data shard."""
    return sum(sequence.prefill_length - sequence.computed for sequence in sequences)


class Scheduler:
    """Admission, chunking and batching of sequences over the data shards of one engine.

    Args:
        config: sizes of the engine.
        data_shards: positions along the mesh's data axis.
        pages_per_data_shard: of the KV cache.
        few_sizes: calls have few sizes, far apart, as on GPUs.
        orders_calls: prefill and decode wait until their calls are full, where an empty call takes
            as long as a full one; False: one call of each in turn.
    """

    def __init__(
        self,
        config: EngineConfig,
        data_shards: int,
        pages_per_data_shard: int,
        *,
        few_sizes: bool = False,
        orders_calls: bool = True,
    ) -> None:
        self.config = config
        self.pools = [PagePool(pages_per_data_shard) for _ in range(data_shards)]
        self.sizes = call_sizes(config, data_shards, few_sizes=few_sizes)
        self.slots = config.shard_slots(data_shards)  # of one data shard
        self._most_rows = self.sizes.prefill_rows[-1]
        self._call_tokens = self._most_rows * config.chunk
        # Where calls that would be too empty are cut in two, a call costs what it computes.
        self._orders_calls = orders_calls and not self.sizes.cuts_prefills
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

    # -- admission: pages and slots ----------------------------------------------------------------

    def admit(self) -> None:
        """Gives waiting sequences pages and slots, in order, until the first that finds no room."""
        while self._waiting and self._place(self._waiting[0]):
            sequence = self._waiting.popleft()
            queue = self._decoding if sequence.prefilled else self._prefilling
            queue[sequence.data_shard].append(sequence)

    def _place(self, sequence: Sequence) -> bool:
        """Places a sequence on the data shard with the longest shared prefix that has room."""
        page_size = self.config.page_size
        keys: list[PageKey] = []
        if self.config.reuse_prefixes:
            keys = page_keys(sequence.tokens[: sequence.prefill_length].tolist(), page_size)
        prefixes = [
            find_shared_prefix(sequence, pool, pool.match(keys), page_size) for pool in self.pools
        ]

        def preference(data_shard: int) -> tuple[int, int, int]:
            shared_pages = len(prefixes[data_shard].pages)
            return -shared_pages, -self.pools[data_shard].available, data_shard

        for data_shard in sorted(range(len(self.pools)), key=preference):
            if sequence.generates and self._slots_used[data_shard] >= self.slots:
                continue
            prefix = prefixes[data_shard]
            total = pages_for(sequence.longest, page_size)
            if total + len(prefix.score_pages) > self.pools[data_shard].pages:
                # it fills the whole cache: there is no room for a page that is only read from
                prefix = NO_SHARED_PREFIX
            pages = self.pools[data_shard].allocate(prefix.held, total - len(prefix.pages))
            if pages is not None:
                self._assign(sequence, data_shard, pages, prefix)
                self._promise_pages(sequence, keys)
                return True
        return False

    def _assign(
        self, sequence: Sequence, data_shard: int, pages: list[int], prefix: SharedPrefix
    ) -> None:
        shared_pages = len(prefix.pages)
        own_pages = pages[len(prefix.held) :]
        sequence.data_shard = data_shard
        sequence.pages = pages[:shared_pages] + own_pages
        sequence.shared_pages = shared_pages
        sequence.shared_scores = prefix.scores
        sequence.score_pages = prefix.score_pages
        if sequence.hidden is not None:
            shared_states = map(self.pools[data_shard].states, prefix.pages)
            sequence.hidden.place([*filter(None, shared_states)], len(own_pages))
        sequence.computed = shared_pages * self.config.page_size
        if sequence.generates:
            self._slots_used[data_shard] += 1

    def _promise_pages(self, sequence: Sequence, keys: list[PageKey]) -> None:
        """Registers the full pages that the prefill of `sequence` will compute."""
        page_size = self.config.page_size
        pool = self.pools[sequence.data_shard]
        index_by_token = sequence.targets.index_by_token(sequence.tokens[: sequence.prefill_length])
        for number in range(sequence.shared_pages, len(keys)):
            index = index_by_token[number * page_size : (number + 1) * page_size]
            # the first token of a sequence has no log-prob
            with_logprob = index[1:] if number == 0 else index
            targets = None
            if (with_logprob >= 0).all():
                targets = PageTargets(sequence.targets, index)
            states = None
            if sequence.hidden is not None:
                states = sequence.hidden.pages[number]
            pool.promise(sequence.pages[number], keys[number], targets, states)

    def _runnable(self, sequence: Sequence) -> bool:
        """Whether all pages it shares are filled by now, or by the call being planned.

        A call writes keys before it reads them.
        """
        if sequence.computed > sequence.shared_pages * self.config.page_size:
            return True  # it has run before, on the same pages
        pool = self.pools[sequence.data_shard]
        shared = sequence.pages[: sequence.shared_pages]
        return all(pool.ready(page) for page in (*shared, *sequence.score_pages))

    # -- prefill -----------------------------------------------------------------------------------

    def next_prefill(self) -> PrefillPlan | None:
        """Returns the next prefill call, or None when there is none or it waits for more tokens.

        Pages that it fills count as filled from now on.
        """
        if self._orders_calls and prefill_waits(self._backlog(), self._call_tokens):
            return None
        oldest = self._oldest_runnable()
        if oldest is None:
            return None

        width = self._width(self._prefill_end(oldest))
        data_shards = [self._fill_rows(number, width) for number in range(len(self.pools))]
        longest = max(len(chunks) for chunks in data_shards)
        rows = self.sizes.rows_of_prefill(longest)

        for chunks in data_shards:
            for chunk in chunks[rows:]:  # they come first in the next call
                self._mark_pages(chunk, filled=False)
        return PrefillPlan([chunks[:rows] for chunks in data_shards], rows=rows, width=width)

    def _oldest_runnable(self) -> Sequence | None:
        for sequences in self._prefilling:
            for sequence in sequences:
                if self._runnable(sequence):
                    return sequence
        return None

    def _backlog(self) -> Backlog:
        """Returns what there is to prefill and to decode."""
        prefilling = list(chain.from_iterable(self._prefilling))
        decoding = list(chain.from_iterable(self._decoding))
        return Backlog(
            prefill_tokens=max(map(_remaining_tokens, self._prefilling)),
            prefill_generates=all(sequence.generates for sequence in prefilling),
            prefill_can_run=any(map(self._runnable, prefilling)),
            slots_used=sum(self._slots_used),
            decoding=len(decoding),
            decode_can_run=any(map(self._runnable, decoding)),
        )

    def _width(self, tokens: int) -> int:
        return bucket_size(pages_for(tokens, self.config.page_size), self.sizes.widths)

    def _prefill_end(self, sequence: Sequence) -> int:
        """Tokens in the cache once the next call has prefilled as much of `sequence` as it can."""
        most = sequence.computed + self._most_rows * self.config.chunk
        return min(sequence.prefill_length, most)

    def _fill_rows(self, data_shard: int, width: int) -> list[PrefillChunk]:
        """Cuts rows of sequences that need this width, oldest first, then of narrower ones."""
        chunks: list[PrefillChunk] = []
        for exact in (True, False):
            for sequence in self._prefilling[data_shard]:
                free_rows = self._most_rows - len(chunks)
                needed = self._width(self._prefill_end(sequence))
                fits = needed == width if exact else needed < width
                if free_rows > 0 and fits and self._runnable(sequence):
                    chunks += self._cut(sequence, free_rows)
        return chunks

    def _cut(self, sequence: Sequence, rows: int) -> list[PrefillChunk]:
        """Cuts up to `rows` rows off the remaining prompt of `sequence`.

        The pages that they fill count as filled.
        """
        size = self.config.chunk
        end = min(sequence.prefill_length, sequence.computed + rows * size)
        chunks: list[PrefillChunk] = []
        for start in range(sequence.computed, end, size):
            chunk = PrefillChunk(sequence, start, min(size, end - start))
            self._mark_pages(chunk, filled=True)
            chunks.append(chunk)
        return chunks

    def _mark_pages(self, chunk: PrefillChunk, *, filled: bool) -> None:
        """Records whether the pages that end within `chunk` are filled."""
        page_size = self.config.page_size
        pool = self.pools[chunk.sequence.data_shard]
        for page in chunk.sequence.pages[chunk.start // page_size : chunk.end // page_size]:
            pool.mark_ready(page, ready=filled)

    def advance_prefill(self, plan: PrefillPlan) -> list[Sequence]:
        """Advances the sequences of a prefill call that is dispatched.

        Returns the sequences with nothing left to compute or generate.
        """
        ended: list[Sequence] = []
        for chunks in plan.data_shards:
            for chunk in chunks:
                sequence = chunk.sequence
                sequence.computed = chunk.end
                if not sequence.prefilled:
                    continue
                self._prefilling[sequence.data_shard].remove(sequence)
                if sequence.generates:
                    self._decoding[sequence.data_shard].append(sequence)
                else:
                    ended.append(sequence)
        return ended

    # -- decode ------------------------------------------------------------------------------------

    def next_decode(self) -> DecodePlan | None:
        """Returns the next decode call, or None.

        There is none when no sequence is ready to generate, or while prefill fills the slots.
        """
        if self._orders_calls and decode_waits(self._backlog(), self._call_tokens):
            return None
        # A fully shared prompt waits here, too, until the sequence that computes it has filled
        # the last page.
        data_shards = [list(filter(self._runnable, sequences)) for sequences in self._decoding]
        if not any(data_shards):
            return None

        longest_reach = 0
        for sequences in data_shards:
            for sequence in sequences:
                # the call leaves its last token behind those that it computes
                reach = min(sequence.computed + self.config.decode_steps + 1, sequence.longest)
                longest_reach = max(longest_reach, reach)
        most_sequences = max(len(sequences) for sequences in data_shards)
        rows = bucket_size(most_sequences, self.sizes.decode_rows)
        return DecodePlan(data_shards, rows=rows, width=self._width(longest_reach))

    def largest_decode(self) -> tuple[int, int] | None:
        """Returns (rows, width) of the largest decode call that the present sequences can need.

        None when none of them generates.
        """
        sequences = list(self._waiting)
        for shard_sequences in (*self._prefilling, *self._decoding):
            sequences += shard_sequences
        lengths = [sequence.longest for sequence in sequences if sequence.generates]
        if not lengths:
            return None
        sequences_of_a_shard = -(-len(lengths) // len(self.pools))
        rows = bucket_size(sequences_of_a_shard, self.sizes.decode_rows)
        return rows, self._width(max(lengths))

    def advance_decode(self, plan: DecodePlan) -> list[Sequence]:
        """Advances the sequences of a decode call that is dispatched.

        Returns the sequences that end with it at the latest, because of their length.
        """
        ended: list[Sequence] = []
        for sequences in plan.data_shards:
            for sequence in sequences:
                reach = sequence.computed + self.config.decode_steps
                sequence.computed = min(reach, sequence.longest)
                if sequence.computed == sequence.longest:
                    ended.append(sequence)
        return ended

    def release(self, sequence: Sequence) -> None:
        """Gives back the pages and the slot of a sequence that has ended.

        A call in flight may still write to the pages, before any call that is dispatched later.
        """
        self.pools[sequence.data_shard].release([*sequence.pages, *sequence.score_pages])
        if sequence.generates:
            self._slots_used[sequence.data_shard] -= 1
            self._decoding[sequence.data_shard].remove(sequence)
        sequence.pages = []
        sequence.score_pages = []
