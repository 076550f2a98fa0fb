import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.input.shards import plan_shards
from pipeline.records import InputFile


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
