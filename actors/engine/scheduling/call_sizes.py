"""The shapes that calls are compiled for: few, whatever the data.

A call has a number of rows and a page table of a width, and reads log-probs at a number of
positions; it takes the next larger size of each and leaves the rest empty. What emptiness costs
depends on the platform:

    CPUs    products take as long as they have rows, attention reads the whole table: sizes are
            close, and calls that would be emptier than an eighth are cut in two
    GPUs    reading weights takes the time up to some hundred rows, and empty positions cost next to
            nothing: sizes are far apart, and no call is cut

Numbers only, no JAX: the driver's plan and its cost model use this, too.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import product

from actors.engine.config import EngineConfig

# Rows of the smallest call on CPUs: fewer rows take as long, because the weights are read all the
# same. XLA's products of one or two rows also round differently from those of eight and more.
MIN_ROWS = 8
ROW_FACTOR = 2  # neighbouring sizes of rows differ by this factor
MAX_EMPTY_PART = 8  # a call with more than 1 / 8 of its rows empty is cut in two
MIN_WIDTH_TOKENS = 64  # tokens that the narrowest page table holds
WIDTH_FACTOR = 4  # neighbouring widths differ by this factor

# On GPUs. 512 positions: each of eight experts, of which a token takes two, has 128 rows, and
# fewer take hardly less time.
FEW_ROWS_FACTOR = 4
MIN_FEW_PREFILL_ROWS = 64
MIN_FEW_DECODE_ROWS = 32

# Positions of one score call on one data shard; more are several calls.
SCORE_POSITIONS = (16, 64, 256)


@dataclass(frozen=True, slots=True)
class CallSizes:
    """Sizes of the calls of one data shard, each in ascending order."""

    prefill_rows: tuple[int, ...]  # of `chunk` tokens each
    decode_rows: tuple[int, ...]  # of one token each
    widths: tuple[int, ...]  # page-table entries of a row
    score_positions: tuple[int, ...]
    cuts_prefills: bool  # whether a prefill call that would be too empty is cut in two
    pools: bool = False  # calls of prefill and pool alone: an engine that embeds

    def programs(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Returns every (rows, width) that each step function can be called with.

        Of `score`: (rows of the prefill, positions); of `pool`: (rows of the prefill, 1). The
        largest one is the last.
        """
        if self.pools:
            return {
                "prefill": tuple(product(self.prefill_rows, self.widths)),
                "pool": tuple((rows, 1) for rows in self.prefill_rows),
            }
        return {
            "prefill": tuple(product(self.prefill_rows, self.widths)),
            "decode": tuple(product(self.decode_rows, self.widths)),
            "score": tuple(product(self.prefill_rows, self.score_positions)),
        }

    def rows_of_prefill(self, needed: int) -> int:
        """Returns the rows of a prefill call for `needed` rows.

        That is the next larger size, or the next smaller one where too many rows would be empty.
        """
        above = bucket_size(needed, self.prefill_rows)
        empty = above - needed
        is_smallest = above == self.prefill_rows[0]
        if is_smallest or not self.cuts_prefills or empty * MAX_EMPTY_PART <= above:
            return above
        return max(size for size in self.prefill_rows if size <= needed)


def call_sizes(config: EngineConfig, data_shards: int, *, few_sizes: bool) -> CallSizes:
    """Returns the shapes of the calls of an engine, with `deterministic` one of each kind.

    Args:
        config: sizes of the engine.
        data_shards: positions along the mesh's data axis.
        few_sizes: empty rows and pages cost little, as on GPUs.
    """
    prefill_rows = max(1, config.prefill_tokens // (config.chunk * data_shards))
    # A row of a decode call is one token, so a call for fewer slots has empty rows.
    decode_rows = max(MIN_ROWS, config.shard_slots(data_shards))
    width = pages_for(config.max_len, config.page_size)
    pools = config.pooling is not None
    if config.deterministic:
        return CallSizes(
            (prefill_rows,),
            (decode_rows,),
            (width,),
            SCORE_POSITIONS[-1:],
            cuts_prefills=False,
            pools=pools,
        )
    if few_sizes:
        return CallSizes(
            divided_sizes(prefill_rows, FEW_ROWS_FACTOR, MIN_FEW_PREFILL_ROWS),
            divided_sizes(decode_rows, FEW_ROWS_FACTOR, MIN_FEW_DECODE_ROWS),
            (width,),
            SCORE_POSITIONS,
            cuts_prefills=False,
            pools=pools,
        )
    narrowest = max(1, MIN_WIDTH_TOKENS // config.page_size)
    return CallSizes(
        geometric_sizes(MIN_ROWS, prefill_rows, ROW_FACTOR),
        geometric_sizes(MIN_ROWS, decode_rows, ROW_FACTOR),
        geometric_sizes(narrowest, width, WIDTH_FACTOR),
        SCORE_POSITIONS,
        cuts_prefills=True,
        pools=pools,
    )


def geometric_sizes(lowest: int, highest: int, factor: int) -> tuple[int, ...]:
    """Returns lowest, factor x lowest, factor^2 x lowest, …, highest."""
    sizes = [min(lowest, highest)]
    while sizes[-1] < highest:
        sizes.append(min(sizes[-1] * factor, highest))
    return tuple(sizes)


def divided_sizes(highest: int, factor: int, low_enough: int) -> tuple[int, ...]:
    """Returns …, highest / factor^2, highest / factor, highest: until one is `low_enough`."""
    sizes = [highest]
    while sizes[0] > low_enough:
        sizes.insert(0, -(-sizes[0] // factor))
    return tuple(sizes)


def bucket_size(value: int, sizes: Items[int]) -> int:
    """Returns the smallest of `sizes` that is at least `value`, the last one if none is."""
    return next((size for size in sizes if size >= value), sizes[-1])


def pages_for(tokens: int, page_size: int) -> int:
    """Returns the pages that hold so many tokens."""
    return -(-tokens // page_size)
