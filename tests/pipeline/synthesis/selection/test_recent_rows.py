from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.selection.recent_rows import RecentRows


@settings(deadline=None)
@given(
    st.integers(1, 9), st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), max_size=60)
)
def test_recent_rows_finds_rows_with_shared_key_in_window(size: int, rows: list[list[int]]) -> None:
    window = RecentRows(size, 2)
    for number, keys in enumerate(rows):
        recent = range(max(0, number - size), number)
        alike = {
            row
            for row in recent
            if any(mine == theirs for mine, theirs in zip(keys, rows[row], strict=True))
        }
        found = list(window.candidates(keys))
        assert len(found) == len(set(found))
        assert alike <= set(found) <= set(recent)
        assert window.add(keys) == number


def test_recent_rows_follows_bounded_chain() -> None:
    window = RecentRows(10_000, 1)
    for _ in range(10_000):
        window.add([7])
    assert list(window.candidates([7])) == list(range(9999, 9999 - 32, -1))
