"""scheduler.py: admission, chunks, sharing; a fake device stands in for the compiled programs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine.config import EngineConfig
from actors.engine.scheduler import ExtendPlan, Scheduler, call_rows, row_rungs, rungs
from actors.engine.sequence import Drawn, Sequence, Targets, no_targets
from tests.actors.engine.engines import generate, score


def config(**sizes: int) -> EngineConfig:
    small = {
        "max_len": 64,
        "batch_tokens": 32,
        "block": 8,
        "slots": 4,
        "page_size": 4,
        "cache_tokens": 256,
    }
    return EngineConfig(**{**small, **sizes})


def generating(row: int, prompt: list[int], max_tokens: int = 4) -> Sequence:
    request = generate(row, prompt, max_tokens)
    tokens = np.asarray(prompt, np.int32)
    return Sequence(request, tokens, goal=len(prompt) - 1, targets=no_targets(), drawn=Drawn())


def scoring(row: int, prompt: list[int], first_target: int) -> Sequence:
    targets = Targets(np.array([first_target], np.int32), np.array([1], np.int32))
    return Sequence(
        score(row, prompt, [1]), np.asarray(prompt, np.int32), goal=len(prompt), targets=targets
    )


def reading(row: int, prompt: list[int]) -> Sequence:
    """Asks for the log-prob of every token but the first, and of one that follows."""
    tokens = np.asarray(prompt, np.int32)
    targets = Targets(np.arange(len(prompt), dtype=np.int32), np.append(tokens[1:], np.int32(99)))
    return Sequence(score(row, prompt, [1]), tokens, goal=len(prompt), targets=targets)


def drain(scheduler: Scheduler) -> list[ExtendPlan]:
    """Plays the device: every sequence draws all its tokens.

    Checks each extend call. Returns the extend calls.
    """
    calls = []
    for _ in range(10_000):
        if scheduler.idle:
            return calls
        scheduler.admit()
        extend = scheduler.next_extend()
        if extend is not None:
            calls.append(extend)
            check(scheduler, extend)
            for sequence in scheduler.extended(extend):
                scheduler.release(sequence)
        decode = scheduler.next_decode()
        for lane in decode.lanes if decode else []:
            for sequence in lane:
                scheduler.release(sequence)
        assert extend or decode, "nothing runs although something waits"
    raise AssertionError("the scheduler did not come to an end")


def check(scheduler: Scheduler, plan: ExtendPlan) -> None:
    config = scheduler.config
    assert plan.rows * config.block * len(plan.lanes) <= max(
        config.batch_tokens, config.block * len(plan.lanes)
    )
    for pieces in plan.lanes:
        assert len(pieces) <= plan.rows
        for piece in pieces:
            assert 0 < piece.count <= config.block
            assert piece.start + piece.count <= plan.width * config.page_size
            assert len(piece.sequence.pages) * config.page_size >= piece.sequence.longest


def rows_of(plan: ExtendPlan) -> list[tuple[int, int, int]]:
    return [
        (piece.sequence.request.ref.row, piece.start, piece.count)
        for lane in plan.lanes
        for piece in lane
    ]


def test_a_long_prompt_takes_several_rows_and_calls_and_others_fill_them_up() -> None:
    scheduler = Scheduler(config(), lanes=1, pages_per_lane=64)
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


def test_a_call_is_no_wider_than_its_oldest_sequence_and_narrower_ones_only_fill_it_up() -> None:
    """A page table as wide as the longest sequence is read for every row of a call."""
    scheduler = Scheduler(
        config(max_len=512, batch_tokens=64, cache_tokens=4096), lanes=1, pages_per_lane=1024
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


@pytest.mark.parametrize(
    ("lowest", "highest", "apart", "found"),
    [(8, 100, 2, [8, 16, 32, 64, 100]), (8, 3, 2, [3]), (4, 64, 4, [4, 16, 64])],
)
def test_rungs_reach_from_the_lowest_to_the_highest(
    lowest: int, highest: int, apart: int, found: list[int]
) -> None:
    assert rungs(lowest, highest, apart) == found


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (1, 8),
        (8, 8),
        (9, 8),
        (13, 8),
        (14, 16),
        (27, 16),
        (28, 32),
        (60, 64),
        (65, 64),
        (87, 64),
        (88, 100),
        (300, 100),
    ],
)
def test_no_call_is_more_than_an_eighth_empty(wanted: int, rows: int) -> None:
    """But a call of the lowest rung may be: it takes no less time with fewer rows.

    What does not fit goes into the next call.
    """
    assert call_rows(wanted, row_rungs(100)) == rows


def test_a_prefix_being_computed_is_shared_and_waited_for() -> None:
    scheduler = Scheduler(config(slots=8), lanes=1, pages_per_lane=64)
    prefix = list(range(1, 41))
    first, second = generating(0, [*prefix, 50, 51]), generating(1, [*prefix, 60, 61, 62])
    for sequence in (first, second):
        scheduler.submit(sequence)
    scheduler.admit()
    assert second.pages[:10] == first.pages[:10]
    assert second.computed == 40
    plan = scheduler.next_extend()
    assert plan is not None
    assert {p.sequence for p in plan.lanes[0]} == {first}, (
        "the second waits: its prefix is not filled by this call"
    )
    scheduler.extended(plan)
    plan = scheduler.next_extend()
    assert plan is not None
    assert [row for row, _, _ in rows_of(plan)] == [0, 0, 1], (
        "both tails in one call: the prefix is written before it is read"
    )


def test_no_reuse_beyond_the_first_target() -> None:
    scheduler = Scheduler(config(), lanes=1, pages_per_lane=64)
    prompt = list(range(1, 22))
    for row, target in ((0, 20), (1, 20), (2, 6), (3, 0)):
        scheduler.submit(scoring(row, prompt, target))
    seen = {
        s.request.ref.row: s.shared
        for plan in drain(scheduler)
        for lane in plan.lanes
        for s in (p.sequence for p in lane)
    }
    assert seen == {0: 0, 1: 5, 2: 1, 3: 0}


def test_a_wholly_cached_prompt_needs_no_extend() -> None:
    scheduler = Scheduler(config(), lanes=1, pages_per_lane=64)
    scheduler.submit(generating(0, list(range(1, 18))))
    assert len(drain(scheduler)) == 1
    scheduler.submit(generating(1, list(range(1, 18))))
    assert drain(scheduler) == []


def test_a_wholly_shared_prompt_waits_for_its_last_page() -> None:
    scheduler = Scheduler(config(max_len=96), lanes=1, pages_per_lane=64)
    prompt = list(range(1, 66))
    first, second = generating(0, prompt), generating(1, prompt)
    for sequence in (first, second):
        scheduler.submit(sequence)
    scheduler.admit()
    assert second.extended, "64 tokens are 16 pages, the last token is decode's"
    for last in (False, True):
        plan = scheduler.next_extend()
        assert plan is not None
        scheduler.extended(plan)
        decode = scheduler.next_decode()
        assert (decode is not None) == last
        assert decode is None or set(decode.lanes[0]) == {first, second}


def test_what_fills_the_whole_cache_borrows_nothing() -> None:
    """Sharing all but the last page would take one page more than there are: the page that the last log-prob is read from."""
    scheduler = Scheduler(config(), lanes=1, pages_per_lane=4)
    for row in range(2):
        scheduler.submit(reading(row, list(range(1, 17))))
    drain(scheduler)


def test_log_probs_of_shared_pages_are_borrowed() -> None:
    scheduler = Scheduler(config(slots=8), lanes=1, pages_per_lane=64)
    prefix = list(range(1, 15))
    first, second, third = (
        reading(0, [*prefix, 50, 51, 52]),
        reading(1, [*prefix, 60, 61]),
        reading(2, [*prefix[:10], 70]),
    )
    for sequence in (first, second, third):
        scheduler.submit(sequence)
    scheduler.admit()
    assert (second.shared, second.lending) == (2, [first.pages[2]]), (
        "page 3 is another one; page 2 tells the log-prob of token 9"
    )
    assert (third.shared, third.lending) == (1, [first.pages[1]])
    assert [loan.index.tolist() for loan in second.loans] == [[0, 1, 2], [3, 4, 5, 6], [7]]
    for loan in second.loans:
        assert loan.lender is first.targets
        assert (
            second.targets.tokens[loan.index].tolist() == first.targets.tokens[loan.lent].tolist()
        )


def test_it_waits_for_pages_and_slots() -> None:
    scheduler = Scheduler(config(slots=2), lanes=1, pages_per_lane=8)
    for row in range(3):
        scheduler.submit(generating(row, [row + 1] * 8, max_tokens=5))
    scheduler.admit()
    plan = scheduler.next_extend()
    assert plan is not None
    assert [row for row, _, _ in rows_of(plan)] == [0, 1]
    for piece in plan.lanes[0]:
        assert len(piece.sequence.pages) == 3


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 50), st.integers(1, 10), st.booleans()),
        max_size=25,
    ),
    st.sampled_from([1, 2]),
)
def test_every_sequence_comes_to_its_end(
    rows: list[tuple[int, int, int, bool]], lanes: int
) -> None:
    scheduler = Scheduler(config(slots=4), lanes=lanes, pages_per_lane=20)
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
