import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.input.shards import RowSample, plan_shards
from pipeline.records import InputFile

# With another algorithm or generator, samples of earlier runs could not be resumed.
SAMPLE_OF_SEED_0 = [258, 419, 511, 755, 841]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6),
    st.integers(1, 20),
    st.none() | st.integers(1, 200),
)
def test_plan_covers_each_row_once_in_order(
    rows: list[int], shard_rows: int, limit: int | None
) -> None:
    files = [InputFile(f"f{index}", 1, "v", count) for index, count in enumerate(rows)]
    shards = plan_shards(files, shard_rows, limit)
    everything = [(file.url, row) for file in files for row in range(file.rows)]
    assert [(s.url, s.first_row + row) for s in shards for row in range(s.rows)] == everything[
        :limit
    ]
    assert [s.number for s in shards] == list(range(len(shards)))
    assert all(1 <= s.rows <= shard_rows for s in shards)


def test_plan_refuses_invalid_sizes() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        plan_shards([InputFile("f", 1, "v", 3)], 0)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(1, 20),
    st.none() | st.integers(1, 100),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_sample_has_distinct_rows_in_order_and_ranges_cover_them(
    rows: list[int], shard_rows: int, limit: int | None, count: int, seed: int
) -> None:
    files = [InputFile(f"f{index}", 1, "v", total) for index, total in enumerate(rows)]
    shards = plan_shards(files, shard_rows, limit, RowSample(count, seed))
    everything = [(file.url, row) for file in files for row in range(file.rows)][:limit]
    sampled = [(s.url, s.file_row(row)) for s in shards for row in range(s.rows)]
    assert len(sampled) == len(set(sampled)) == min(count, len(everything))
    assert [row for row in everything if row in set(sampled)] == sampled
    assert all(1 <= s.rows <= shard_rows for s in shards)
    for shard in shards:
        covered = [row for file_range in shard.ranges() for row in file_range]
        assert covered == [shard.file_row(position) for position in range(shard.rows)]
        assert shard.head(1).rows == len(list(shard.head(1).ranges())) == 1


def test_sample_of_a_seed_never_changes() -> None:
    assert RowSample(5, 0).positions(1000) == SAMPLE_OF_SEED_0
    assert RowSample(5, 1).positions(1000) != SAMPLE_OF_SEED_0
    assert RowSample(5, 1).positions(3) == [0, 1, 2]
