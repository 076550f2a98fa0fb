import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.messages import RowRef
from pipeline.monitoring.row_counts import RowCounts, allowed_failures, error_budget


@pytest.mark.parametrize(
    ("rows", "rate", "budget"),
    [
        (100, 0.29, 29),  # as floats, 0.29 * 100 is 28.999999999999996
        (100, 0.57, 57),
        (1000, 0.001, 1),
        (999, 0.001, 0),
        (10**7, 1e-07, 1),
        (3, 1.0, 3),
        (10, 0.0, 0),
    ],
)
def test_error_budget_is_exact(rows: int, rate: float, budget: int) -> None:
    assert error_budget(rows, rate) == budget


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_error_budget_of_whole_percents(rows: int, percent: int) -> None:
    assert error_budget(rows, percent / 100) == rows * percent // 100


@pytest.mark.parametrize(
    ("rows", "rate", "allowed"),
    [
        (1, 0.01, 0),
        (2, 0.01, 1),
        (3, 0.01, 1),  # 2 of 3 are too many
        (20, 0.01, 10),
        (999, 0.01, 10),
        (5000, 0.01, 50),
        (3, 0.0, 0),
        (3, 1.0, 3),
    ],
)
def test_allowed_failures_of_small_inputs_are_at_most_half(
    rows: int, rate: float, allowed: int
) -> None:
    assert allowed_failures(rows, rate) == allowed


def test_row_counts_when_its_last_sample_is_in() -> None:
    counts = RowCounts()
    for sample in range(2):
        counts.add(RowRef(0, 7, sample, 3), is_error=False)
        assert counts.answered == 0
    counts.add(RowRef(0, 7, 2, 3), is_error=False)
    assert (counts.answered, counts.failed) == (1, 0)


def test_row_counts_when_its_last_window_is_in() -> None:
    counts = RowCounts()
    for window in (3, 0, 2):
        counts.add(RowRef(0, 7, window=window, windows=4), is_error=window == 0)
    assert (counts.answered, counts.begun) == (0, 0.75)
    assert counts.has_failed(RowRef(0, 7, window=1, windows=4))
    counts.add(RowRef(0, 7, window=1, windows=4), is_error=False)
    assert (counts.answered, counts.failed, counts.begun) == (1, 1, 1.0)


def test_rows_with_one_failed_sample_each_are_failed_rows() -> None:
    counts = RowCounts()
    for sample in range(2):
        for row in range(2):
            counts.add(RowRef(0, row, sample, 2), is_error=sample == 0)
    assert (counts.answered, counts.failed) == (2, 2)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=30), st.randoms())
def test_rows_are_counted_in_any_order(rows: list[tuple[int, int]], random: object) -> None:
    samples = []
    for row, (count, failed) in enumerate(rows):
        refs = [RowRef(row % 2, row, sample, count) for sample in range(count)]
        samples += [(ref, ref.sample < failed) for ref in refs]
    random.shuffle(samples)  # type: ignore[attr-defined]
    counts = RowCounts()
    for ref, is_error in samples:
        counts.add(ref, is_error=is_error)
    assert counts.answered == len(rows)
    assert counts.failed == sum(failed > 0 for _, failed in rows)
    assert not counts._open, "rows that are complete are forgotten: memory is bounded"
