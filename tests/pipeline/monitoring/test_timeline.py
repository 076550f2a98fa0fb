import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.monitoring.timeline import Timeline

TIMES = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(st.tuples(TIMES, TIMES, st.floats(0, 1e6)), max_size=20))
def test_timeline_keeps_sums_however_long_it_runs(events: list[tuple[float, float, float]]) -> None:
    timeline = Timeline(most_spans=8)
    now_s = 0.0
    for one, other, amount in events:
        timeline.add("points", one, amount)
        timeline.spread("lines", min(one, other), max(one, other), amount)
        now_s = max(now_s, one, other)
    ends = timeline.ends(now_s)
    assert 1 <= len(ends) <= 8
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(now_s)
    for name in ("points", "lines"):
        sums = timeline.sums(name, now_s)
        assert len(sums) == len(ends)
        assert sum(sums) == pytest.approx(sum(amount for _, _, amount in events), abs=1e-3)


def test_timeline_keeps_amounts_in_their_spans() -> None:
    timeline = Timeline(most_spans=4, span_s=1.0)
    timeline.add("points", 0.5)
    timeline.add("points", 2.5, 3)
    timeline.spread("lines", 0.5, 2.5, 8)
    assert timeline.ends(2.75) == [1.0, 2.0, 2.75]
    assert timeline.sums("points", 2.75) == [1, 0, 3]
    assert timeline.sums("lines", 2.75) == [2, 4, 2]
    assert timeline.sums("never heard of", 2.75) == [0, 0, 0]
    timeline.add("points", 4.0)  # beyond the axis: pairs of spans become one
    assert timeline.span_s == 2.0
    assert timeline.ends(5.0) == [2.0, 4.0, 5.0]
    assert timeline.sums("points", 5.0) == [1, 3, 1]
    assert timeline.sums("lines", 5.0) == [6, 2, 0]


def test_event_at_the_end_belongs_to_the_last_span() -> None:
    timeline = Timeline(most_spans=4, span_s=1.0)
    timeline.add("points", 2.0)
    assert timeline.ends(2.0) == [1.0, 2.0]
    assert timeline.sums("points", 2.0) == [0, 1]
