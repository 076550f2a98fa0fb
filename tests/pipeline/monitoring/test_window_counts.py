from actors.protocol.messages import RowRef
from pipeline.monitoring.window_counts import WindowCounts


def test_window_counts_add_tokens_of_all_windows() -> None:
    counts = WindowCounts()
    for window in (2, 0, 1):
        counts.add(RowRef(0, 7, window=window, windows=3), 1_000, 400)
    assert counts == WindowCounts(1, 3, 3_000, 1_200)
    assert counts.text == (
        "1 text in 3 windows: 3,000 tokens computed, 1,200 scored (2.50 computed for each)"
    )


def test_window_counts_without_windows_have_no_text() -> None:
    assert WindowCounts().text == ""
