import pytest

from actors.protocol.messages import ReplicaInfo, ReplicaStats
from pipeline.monitoring.replica_use import MAX_PROFILES, ReplicaUse
from pipeline.monitoring.timeline import Timeline


def test_report_has_busy_shares_and_start_of_idleness() -> None:
    use = ReplicaUse(Timeline(most_spans=8, span_s=1.0))
    use.ready("a", None, 0.0)
    use.ready("b", None, 1.0)
    use.stats("a", ReplicaStats(busy_s=1.0, up_s=1.0), 1.0)
    use.stats("a", ReplicaStats(busy_s=1.5, up_s=2.0), 2.0)
    use.stats("b", ReplicaStats(busy_s=0.5, up_s=1.0), 2.0)
    use.lost("b", "killed", 3.0)
    a, b = use.report(4.0)
    assert a["busy_over_time"] == [1.0, 0.5, 0.0, 0.0]
    assert b["busy_over_time"] == [None, 0.5, 0.0, None]
    assert (a["utilisation"], a["last_answer_s"], a["up_s"], a["lost"]) == (0.375, 2.0, 4.0, None)
    assert (b["utilisation"], b["since_s"], b["up_s"], b["lost"]) == (0.25, 1.0, 2.0, "killed")
    assert use.up_s(4.0) == pytest.approx([1.0, 2.0, 2.0, 1.0])
    assert use.hours(4.0) == pytest.approx(6 / 3600)


def test_report_details_the_least_busy_of_many_replicas() -> None:
    use = ReplicaUse(Timeline())
    for number in range(3 * MAX_PROFILES):
        use.ready(f"r{number}", None, 0.0)
        use.stats(f"r{number}", ReplicaStats(busy_s=number / 100, up_s=5.0), 5.0)
    told = use.report(5.0)
    assert [row["name"] for row in told if row["busy_over_time"] is not None] == [
        f"r{number}" for number in range(MAX_PROFILES)
    ]
    assert len(told) == 3 * MAX_PROFILES


def test_out_of_order_stats_change_only_the_last_time() -> None:
    use = ReplicaUse(Timeline())
    use.ready("a", None, 0.0)
    use.stats("a", ReplicaStats(busy_s=3.0, up_s=4.0), 4.0)
    use.stats("a", ReplicaStats(busy_s=2.0, up_s=3.0), 4.5)
    use.stats("unknown", ReplicaStats(busy_s=2.0, up_s=3.0), 4.5)
    [told] = use.report(5.0)
    assert (told["utilisation"], told["last_answer_s"]) == (0.6, 4.5)
    assert use.total().busy_s == 3.0


def test_replica_that_never_loaded_is_not_among_the_idle() -> None:
    use = ReplicaUse(Timeline())
    use.lost("a", "died while loading", 2.0)
    use.ready("b", None, 1.0)
    use.retired("b", "no work", 4.0)
    a, b = use.report(5.0)
    assert (a["lost"], a["up_s"], a["busy_over_time"]) == ("died while loading", 0.0, None)
    assert (b["lost"], b["retired"], b["up_s"]) == (None, "no work", 3.0)
    assert b["busy_over_time"] is not None


def test_compilation_and_loading_are_counted_apart_from_work() -> None:
    timeline = Timeline(span_s=1.0)
    use = ReplicaUse(timeline)
    info = ReplicaInfo("b", "node", (), "1x1", 0, 0, 0, 1, load_s=1.5)
    use.ready("a", None, 0.0)
    use.ready("b", info, 2.0)
    use.stats("a", ReplicaStats(busy_s=0.5, compile_s=1.5, up_s=2.0), 2.0)
    use.stats("a", ReplicaStats(busy_s=2.5, compile_s=1.5, up_s=4.0), 4.0)

    assert timeline.sums("compile_s", 4.0) == [0.75, 0.75, 0.0, 0.0]
    assert timeline.sums("load_s", 4.0) == [0.5, 1.0, 0.0, 0.0]
    a, b = use.report(4.0)
    assert a["compiling_over_time"] == [0.75, 0.75, 0.0, 0.0]
    assert a["busy_over_time"] == [0.25, 0.25, 1.0, 1.0]
    assert b["compiling_over_time"] == [None, None, 0.0, 0.0]
