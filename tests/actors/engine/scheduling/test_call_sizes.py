import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.config import EngineConfig
from actors.engine.scheduling.call_sizes import (
    MIN_ROWS,
    bucket_size,
    call_sizes,
    divided_sizes,
    geometric_sizes,
)
from actors.engine.scheduling.scheduler import Scheduler


@pytest.mark.parametrize(
    ("lowest", "highest", "factor", "sizes"),
    [(8, 100, 2, (8, 16, 32, 64, 100)), (8, 3, 2, (3,)), (4, 64, 4, (4, 16, 64))],
)
def test_geometric_sizes_reach_from_the_lowest_to_the_highest(
    lowest: int, highest: int, factor: int, sizes: tuple[int, ...]
) -> None:
    assert geometric_sizes(lowest, highest, factor) == sizes


@pytest.mark.parametrize(
    ("highest", "sizes"), [(512, (32, 128, 512)), (256, (16, 64, 256)), (33, (9, 33)), (8, (8,))]
)
def test_divided_sizes_end_at_the_first_low_enough(highest: int, sizes: tuple[int, ...]) -> None:
    assert divided_sizes(highest, factor=4, low_enough=32) == sizes


@pytest.mark.parametrize(
    ("needed", "rows"),
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
def test_prefill_calls_on_cpus_leave_at_most_an_eighth_empty(needed: int, rows: int) -> None:
    """But a call of the lowest size may be emptier: it takes no less time with fewer rows.

    What does not fit goes into the next call.
    """
    config = EngineConfig(max_len=64, prefill_tokens=800, chunk=8)
    assert call_sizes(config, 1, few_sizes=False).rows_of_prefill(needed) == rows


@pytest.mark.parametrize(("needed", "rows"), [(1, 64), (64, 64), (65, 256), (257, 1024)])
def test_prefill_calls_on_gpus_are_never_cut(needed: int, rows: int) -> None:
    config = EngineConfig(max_len=64, prefill_tokens=8192, chunk=8)
    assert call_sizes(config, 1, few_sizes=True).rows_of_prefill(needed) == rows


@pytest.mark.parametrize("slots", [256, 512])
def test_gpus_need_few_programs_for_many_slots(slots: int) -> None:
    config = EngineConfig(max_len=8192, prefill_tokens=8192, slots=slots)

    programs = call_sizes(config, 1, few_sizes=True).programs()

    assert {name: len(shapes) for name, shapes in programs.items()} == {
        "prefill": 3,
        "decode": 3,
        "score": 9,
    }
    assert programs["decode"][-1] == (slots, 512)
    assert programs["prefill"][-1] == (1024, 512)


@pytest.mark.parametrize("few_sizes", [False, True])
def test_deterministic_engines_have_one_program_of_each_kind(few_sizes: bool) -> None:
    config = EngineConfig(max_len=512, prefill_tokens=256, slots=32, deterministic=True)

    sizes = call_sizes(config, 2, few_sizes=few_sizes)

    assert sizes.programs() == {
        "prefill": ((16, 32),),
        "decode": ((16, 32),),
        "score": ((16, 256),),
    }
    assert sizes.rows_of_prefill(1) == 16


@pytest.mark.parametrize("few_sizes", [False, True])
def test_engine_that_embeds_has_no_programs_of_logits(few_sizes: bool) -> None:
    config = EngineConfig(max_len=512, prefill_tokens=1024, pooling="mean")
    programs = call_sizes(config, 1, few_sizes=few_sizes).programs()
    assert programs.keys() == {"prefill", "pool"}
    prefill_rows = {rows for rows, _ in programs["prefill"]}
    assert {rows for rows, _ in programs["pool"]} == prefill_rows
    assert programs["pool"][-1] == (programs["prefill"][-1][0], 1)


@given(
    max_len=st.integers(1, 2000),
    page=st.sampled_from([4, 16, 64, 128]),
    tokens=st.integers(1, 9000),
    data_shards=st.integers(1, 4),
    few_sizes=st.booleans(),
    deterministic=st.booleans(),
)
def test_programs_cover_all_calls_of_a_scheduler(
    max_len: int, page: int, tokens: int, data_shards: int, few_sizes: bool, deterministic: bool
) -> None:
    engine = EngineConfig(
        max_len=max_len,
        page_size=page,
        prefill_tokens=tokens,
        slots=1 + tokens % 99,
        deterministic=deterministic,
    )
    scheduler = Scheduler(engine, data_shards, pages_per_data_shard=1, few_sizes=few_sizes)
    programs = call_sizes(engine, data_shards, few_sizes=few_sizes).programs()
    widest = -(-max_len // page)
    most_rows = max(1, tokens // (engine.chunk * data_shards))

    assert programs["prefill"][-1] == (most_rows, widest)
    assert programs["decode"][-1] == (max(MIN_ROWS, scheduler.slots), widest)
    for shapes in programs.values():
        assert len(set(shapes)) == len(shapes)
    for needed in {1, most_rows // 2 + 1, most_rows}:
        assert scheduler.sizes.rows_of_prefill(needed) in scheduler.sizes.prefill_rows
    assert bucket_size(widest, scheduler.sizes.widths) == widest
