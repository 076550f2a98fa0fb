import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.selection.samples import StageResult, numbers, row_groups


@given(st.lists(st.integers(1, 4), max_size=6))
def test_row_groups_are_the_samples_of_each_row(counts: list[int]) -> None:
    ids = [f"r{row}" for row, count in enumerate(counts) for _ in range(count)]
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    starts = [0, *ends[:-1]][: len(counts)]
    groups = row_groups(pa.table({"id": pa.array(ids, pa.string())}))
    assert groups == list(zip(starts, ends, strict=True))


def test_stage_result_masks_samples_without_verdict() -> None:
    table = pa.table({"id": ["a", "b"]})
    assert StageResult(table, [None, Rejection("stop", "x")]).passed.tolist() == [True, False]
    assert StageResult(table.slice(0, 0), []).passed.tolist() == []


def test_numbers_replace_nulls() -> None:
    assert numbers(pa.table({"x": [1, None, 3]}), "x", 7).tolist() == [1, 7, 3]
