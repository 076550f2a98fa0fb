"""scheduler.py: admission, chunks, sharing; a fake device stands in for the compiled programs."""

from typing import Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.config import EngineConfig
from actors.engine.scheduling.scheduler import PrefillPlan, Scheduler
from actors.engine.scheduling.sequence import Sequence, Targets, no_targets
from tests.actors.engine.engines import generate, score
from tests.actors.engine.scheduling.page_contents import PageContents


def config(**sizes: int) -> EngineConfig:
    small = {
        "max_len": 64,
        "prefill_tokens": 32,
        "chunk": 8,
        "slots": 4,
        "page_size": 4,
        "cache_tokens": 256,
    }
    return EngineConfig(**{**small, **sizes})


def generating(row: int, prompt: list[int], max_tokens: int = 4) -> Sequence:
    request = generate(row, prompt, max_tokens)
    tokens = np.asarray(prompt, np.int32)
    return Sequence(
        request,
        tokens,
        prefill_length=len(prompt) - 1,
        targets=no_targets(),
        max_new_tokens=max_tokens,
    )


def scoring(row: int, prompt: list[int], first_target: int) -> Sequence:
    targets = Targets(np.array([first_target], np.int32), np.array([1], np.int32))
    return Sequence(
        score(row, prompt, [1]),
        np.asarray(prompt, np.int32),
        prefill_length=len(prompt),
        targets=targets,
    )


def reading(row: int, prompt: list[int], first: int = 0) -> Sequence:
    """Requests log-probs at all positions from `first` on: of the prompt, and of one token more."""
    tokens = np.asarray(prompt, np.int32)
    positions = np.arange(first, len(prompt), dtype=np.int32)
    targets = Targets(positions, np.append(tokens[1:], np.int32(99))[first:])
    return Sequence(score(row, prompt, [1]), tokens, prefill_length=len(prompt), targets=targets)


def drain(scheduler: Scheduler, device: PageContents | None = None) -> list[PrefillPlan]:
    """Runs all sequences to their end on pages that remember their contents.

    Checks each prefill call. Returns the prefill calls.
    """
    device = device or PageContents(scheduler)
    calls: list[PrefillPlan] = []
    for _ in range(10_000):
        if scheduler.idle:
            return calls
        calls += run_step(scheduler, device)
    raise AssertionError("the scheduler did not come to an end")


def run_step(
    scheduler: Scheduler, device: PageContents, end_early: bool = False
) -> list[PrefillPlan]:
    """Runs one prefill and one decode call, as the engine does; returns the prefill call."""
    scheduler.admit()
    prefill = scheduler.next_prefill()
    ended: list[Sequence] = []
    if prefill is not None:
        check(scheduler, prefill)
        device.prefill(prefill)
        ended += scheduler.advance_prefill(prefill)
    decode = scheduler.next_decode()
    if decode is not None:
        ended += device.decode(decode, end_early)
    assert prefill or decode, "nothing runs although something waits"
    for sequence in ended:
        device.finish(sequence)
    return [prefill] if prefill is not None else []


def check(scheduler: Scheduler, plan: PrefillPlan) -> None:
    config = scheduler.config
    assert plan.rows * config.chunk * len(plan.data_shards) <= max(
        config.prefill_tokens, config.chunk * len(plan.data_shards)
    )
    for pieces in plan.data_shards:
        assert len(pieces) <= plan.rows
        for piece in pieces:
            assert 0 < piece.count <= config.chunk
            assert piece.start + piece.count <= plan.width * config.page_size
            assert len(piece.sequence.pages) * config.page_size >= piece.sequence.longest


def rows_of(plan: PrefillPlan) -> list[tuple[int, int, int]]:
    return [
        (piece.sequence.request.ref.row, piece.start, piece.count)
        for data_shard in plan.data_shards
        for piece in data_shard
    ]


def test_long_prompts_take_several_calls_and_short_ones_fill_them() -> None:
    scheduler = Scheduler(config(), data_shards=1, pages_per_data_shard=64)
    for sequence in [
        generating(0, list(range(1, 60))),
        generating(1, [1] * 12),
        generating(2, [2] * 16),
    ]:
        scheduler.submit(sequence)
    assert [rows_of(plan) for plan in drain(scheduler)] == [
        [(0, 0, 8), (0, 8, 8), (0, 16, 8), (0, 24, 8)],
        [(0, 32, 8), (0, 40, 8), (0, 48, 8), (0, 56, 2)],
        [(1, 0, 8), (1, 8, 3), (2, 0, 8), (2, 8, 7)],
    ]


def test_calls_are_as_wide_as_their_oldest_sequence() -> None:
    """A page table as wide as the longest sequence is read for every row of a call."""
    scheduler = Scheduler(
        config(max_len=512, prefill_tokens=64, cache_tokens=4096),
        data_shards=1,
        pages_per_data_shard=1024,
    )
    scheduler.submit(generating(0, list(range(1, 400))))
    for row in (1, 2, 3):
        scheduler.submit(generating(row, [row] * 20))
    calls = [
        (plan.width, sorted({row for row, _, _ in rows_of(plan)})) for plan in drain(scheduler)
    ]
    assert calls == [
        (16, [0]),
        (64, [0]),
        (64, [0]),
        (64, [0]),
        (128, [0]),
        (128, [0]),
        (128, [0, 1, 2]),
        (16, [3]),
    ]


def test_prefix_in_computation_is_shared_and_waited_for() -> None:
    scheduler = Scheduler(config(slots=8), data_shards=1, pages_per_data_shard=64)
    prefix = list(range(1, 41))
    first, second = generating(0, [*prefix, 50, 51]), generating(1, [*prefix, 60, 61, 62])
    for sequence in (first, second):
        scheduler.submit(sequence)
    scheduler.admit()
    assert second.pages[:10] == first.pages[:10]
    assert second.computed == 40
    plan = scheduler.next_prefill()
    assert plan is not None
    assert {p.sequence for p in plan.data_shards[0]} == {first}, (
        "the second waits: its prefix is not filled by this call"
    )
    scheduler.advance_prefill(plan)
    plan = scheduler.next_prefill()
    assert plan is not None
    assert [row for row, _, _ in rows_of(plan)] == [0, 0, 1], (
        "both tails in one call: the prefix is written before it is read"
    )


def test_prefix_reuse_ends_at_the_first_target() -> None:
    scheduler = Scheduler(config(), data_shards=1, pages_per_data_shard=64)
    prompt = list(range(1, 22))
    for row, target in ((0, 20), (1, 20), (2, 6), (3, 0)):
        scheduler.submit(scoring(row, prompt, target))
    seen = {
        s.request.ref.row: s.shared_pages
        for plan in drain(scheduler)
        for data_shard in plan.data_shards
        for s in (p.sequence for p in data_shard)
    }
    assert seen == {0: 0, 1: 5, 2: 1, 3: 0}


def test_fully_cached_prompt_needs_no_prefill() -> None:
    scheduler = Scheduler(config(), data_shards=1, pages_per_data_shard=64)
    device = PageContents(scheduler)
    scheduler.submit(generating(0, list(range(1, 18))))
    assert len(drain(scheduler, device)) == 1
    scheduler.submit(generating(1, list(range(1, 18))))
    assert drain(scheduler, device) == []


def test_fully_shared_prompt_waits_for_its_last_page() -> None:
    scheduler = Scheduler(config(max_len=96), data_shards=1, pages_per_data_shard=64)
    prompt = list(range(1, 66))
    first, second = generating(0, prompt), generating(1, prompt)
    for sequence in (first, second):
        scheduler.submit(sequence)
    scheduler.admit()
    assert second.prefilled, "64 tokens are 16 pages, the last token is decode's"
    for last in (False, True):
        plan = scheduler.next_prefill()
        assert plan is not None
        scheduler.advance_prefill(plan)
        decode = scheduler.next_decode()
        assert (decode is not None) == last
        assert decode is None or set(decode.data_shards[0]) == {first, second}


def test_sequence_that_fills_the_cache_shares_nothing() -> None:
    """Sharing all but the last page would take a page too many: the one of the last log-prob."""
    scheduler = Scheduler(config(), data_shards=1, pages_per_data_shard=4)
    for row in range(2):
        scheduler.submit(reading(row, list(range(1, 17))))
    drain(scheduler)


def test_logprobs_of_shared_pages_are_copied() -> None:
    scheduler = Scheduler(config(slots=8), data_shards=1, pages_per_data_shard=64)
    prefix = list(range(1, 15))
    first, second, third = (
        reading(0, [*prefix, 50, 51, 52]),
        reading(1, [*prefix, 60, 61]),
        reading(2, [*prefix[:10], 70]),
    )
    for sequence in (first, second, third):
        scheduler.submit(sequence)
    scheduler.admit()
    assert (second.shared_pages, second.score_pages) == (2, [first.pages[2]]), (
        "page 3 is another one; page 2 tells the log-prob of token 9"
    )
    assert (third.shared_pages, third.score_pages) == (1, [first.pages[1]])
    assert [scores.index.tolist() for scores in second.shared_scores] == [
        [0, 1, 2],
        [3, 4, 5, 6],
        [7],
    ]
    for scores in second.shared_scores:
        assert scores.source is first.targets
        assert (
            second.targets.tokens[scores.index].tolist()
            == first.targets.tokens[scores.source_index].tolist()
        )


def test_admission_waits_for_pages_and_slots() -> None:
    scheduler = Scheduler(config(slots=2), data_shards=1, pages_per_data_shard=8)
    for row in range(3):
        scheduler.submit(generating(row, [row + 1] * 8, max_tokens=5))
    scheduler.admit()
    plan = scheduler.next_prefill()
    assert plan is not None
    assert [row for row, _, _ in rows_of(plan)] == [0, 1]
    for piece in plan.data_shards[0]:
        assert len(piece.sequence.pages) == 3


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 50), st.integers(1, 10), st.booleans()),
        max_size=25,
    ),
    st.sampled_from([1, 2]),
)
def test_sequences_run_to_their_end(
    rows: list[tuple[int, int, int, bool]], data_shards: int
) -> None:
    scheduler = Scheduler(config(slots=4), data_shards=data_shards, pages_per_data_shard=20)
    prefixes = ([1] * 64, list(range(1, 65)), list(range(1, 33)) + [7] * 32)
    for row, (prefix, length, more, generates) in enumerate(rows):
        prompt = prefixes[prefix][:length]
        scheduler.submit(
            generating(row, prompt, more) if generates else scoring(row, prompt, length - 1)
        )
    calls = drain(scheduler)
    assert all(pool.available == pool.pages for pool in scheduler.pools)
    for row, plan_rows in enumerate(rows):
        covered = [
            (start, count) for plan in calls for r, start, count in rows_of(plan) if r == row
        ]
        ends = [start + count for start, count in covered]
        assert [start for start, _ in covered[1:]] == ends[:-1], "no token twice, none left out"
        assert not ends or ends[-1] == plan_rows[1] - plan_rows[3]


@pytest.mark.parametrize(("few_sizes", "pages"), [(True, 20), (False, 90)])
def test_512_slots_never_need_more_pages_than_there_are(few_sizes: bool, pages: int) -> None:
    """A cache of one or of a few sequences: pages limit them, and all of them end."""
    sizes = config(slots=512, prefill_tokens=2048, max_len=64, cache_tokens=pages * 4)
    scheduler = Scheduler(sizes, data_shards=1, pages_per_data_shard=pages, few_sizes=few_sizes)
    rng = np.random.default_rng(0)
    for row in range(40):
        prompt = rng.integers(1, 3, rng.integers(1, 50)).tolist()
        scheduler.submit(generating(row, prompt, int(rng.integers(1, 14))))

    device = PageContents(scheduler)
    most_in_use = 0
    while not scheduler.idle:
        run_step(scheduler, device, end_early=bool(rng.integers(0, 2)))
        most_in_use = max(most_in_use, pages - scheduler.pools[0].available)

    assert pages // 3 < most_in_use <= pages
    assert scheduler.pools[0].available == pages


def test_page_of_a_row_that_is_cut_off_is_not_ready() -> None:
    scheduler = Scheduler(
        config(chunk=3, prefill_tokens=36), data_shards=1, pages_per_data_shard=64
    )
    sequence = generating(0, list(range(1, 30)))
    scheduler.submit(sequence)
    scheduler.admit()
    plan = scheduler.next_prefill()
    assert plan is not None
    assert len(plan.data_shards[0]) == 8, "10 rows of 12 would leave too many empty"
    ready = [scheduler.pools[0].ready(page) for page in sequence.pages[:7]]
    assert ready == [True] * 6 + [False]


def two_shards_with_two_widths() -> Scheduler:
    """A call takes 39 tokens of a sequence; tables beyond 64 tokens are wider.

    While the first data shard has a narrow prompt, the second one leaves its wide prompt waiting.
    """
    sizes = config(max_len=160, chunk=3, prefill_tokens=2 * 39, slots=8)
    return Scheduler(sizes, data_shards=2, pages_per_data_shard=100)


def test_page_that_a_call_fills_partly_is_not_ready() -> None:
    scheduler = two_shards_with_two_widths()
    prompt = list(range(1, 111))
    scheduler.submit(generating(0, [500] * 63))
    scheduler.submit(generating(1, prompt))
    sharing = generating(2, [*prompt[:40], 201, 202])
    scheduler.submit(sharing)
    calls = drain(scheduler)
    assert sharing.shared_pages == 10
    assert rows_of(calls[1])[0][0] == 0, "row 1 waits for a wide call, and row 2 for row 1"
    assert 2 not in {row for row, _, _ in rows_of(calls[1])}


def test_sequence_waits_for_the_page_that_holds_its_shared_score() -> None:
    """Its shared pages are computed long ago; the log-prob of the token after them is not."""
    scheduler = two_shards_with_two_widths()
    device = PageContents(scheduler)
    prompt = list(range(1, 111))
    scheduler.submit(generating(0, [400] * 5))
    scheduler.submit(reading(1, [*prompt[:36], 200]))
    drain(scheduler, device)

    scheduler.submit(generating(2, [500] * 63))
    scheduler.submit(reading(3, prompt))
    sharing = reading(4, [*prompt[:40], 201])
    scheduler.submit(sharing)
    scheduler.admit()
    assert (sharing.shared_pages, len(sharing.score_pages)) == (9, 1)
    calls = drain(scheduler, device)
    assert {row for row, _, _ in rows_of(calls[0])} == {2}


class Row(NamedTuple):
    """A sequence of the property test: a shared prefix that is cut somewhere, and a tail."""

    kind: Literal["generate", "score", "read"]
    prefix: int
    cut: int
    tail: list[int]
    max_new_tokens: int
    first_target: int  # position of the first requested log-prob, where it reads
    steps_before: int  # calls that run before it is submitted


ROWS = st.builds(
    Row,
    st.sampled_from(["generate", "score", "read"]),
    st.integers(0, 1),
    # page borders and their neighbours, and prompts that need a wider page table
    st.sampled_from([0, 7, 8, 9, 15, 16, 17, 32, 33, 60, 61, 62, 64, 100]),
    st.lists(st.integers(1, 2), min_size=1, max_size=4),
    st.integers(1, 9),
    st.sampled_from([0, 0, 3, 4, 7, 8]),
    st.integers(0, 2),
)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(ROWS, min_size=4, max_size=16),
    data_shards=st.sampled_from([1, 2]),
    cache_tokens=st.sampled_from([120, 200, 480]),
    # rows of a call: 4; 12, of which 8 are compiled, too; 16
    sizes=st.sampled_from([(4, 8, 32), (4, 3, 36), (8, 4, 64)]),
    end_early=st.booleans(),
    few_sizes=st.booleans(),
)
def test_calls_read_only_pages_written_from_the_same_tokens(
    rows: list[Row],
    data_shards: int,
    cache_tokens: int,
    sizes: tuple[int, int, int],
    end_early: bool,
    few_sizes: bool,
) -> None:
    """Shared, cut, evicted or copied: keys and log-probs are those of the sequence's tokens."""
    page_size, chunk, prefill_tokens = sizes
    small = config(
        page_size=page_size, chunk=chunk, prefill_tokens=prefill_tokens, decode_steps=3, max_len=160
    )
    pages = cache_tokens // page_size
    scheduler = Scheduler(
        small, data_shards=data_shards, pages_per_data_shard=pages, few_sizes=few_sizes
    )
    device = PageContents(scheduler)
    prefixes = (list(range(1, 129)), [*range(1, 17), *([7] * 112)])
    for number, row in enumerate(rows):
        for _ in range(row.steps_before):
            if not scheduler.idle:
                run_step(scheduler, device, end_early)
        prompt = [*prefixes[row.prefix][: row.cut], *row.tail]
        if row.kind == "generate":
            scheduler.submit(generating(number, prompt, row.max_new_tokens))
        elif row.kind == "score":
            scheduler.submit(scoring(number, prompt, len(prompt) - 1))
        else:
            first_target = min(row.first_target, len(prompt) - 1)
            scheduler.submit(reading(number, prompt, first_target))
    while not scheduler.idle:
        run_step(scheduler, device, end_early)
    assert all(pool.available == pool.pages for pool in scheduler.pools)
