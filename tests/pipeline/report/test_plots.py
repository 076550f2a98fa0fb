"""Titles and tables of the plots of a run report; test_run_report.py checks their page."""

from typing import Any

from pipeline.report.plots import capacity, failures, lengths, replica_map, shares, tail, throughput

OVER_TIME = {
    "s": [10.0, 20.0],
    "prompt": [100.0, 300.0],
    "completion": [50.0, 0.0],
    "cached": [0.0, 75.0],
    "prefill_tokens": [80.0, 0.0],
    "prefill_positions": [100.0, 0.0],
    "errors": [0.0, 0.0],
    "retries": [3.0, 0.0],
    "losses": [0.0, 1.0],
}


def replica(name: str, last_answer_s: float = 20.0, **fields: Any) -> dict[str, Any]:
    """Returns a replica of report.json that is up from the start to second 20."""
    defaults = {
        "name": name,
        "info": {"node": f"node of {name}"},
        "since_s": 0.0,
        "up_s": 20.0,
        "utilisation": 0.5,
        "last_answer_s": last_answer_s,
        "lost": None,
        "retired": None,
        "busy_over_time": [0.5, None],
    }
    return {**defaults, **fields}


def test_throughput_table_has_tokens_per_second_of_each_span() -> None:
    assert throughput(OVER_TIME).rows == (("10 s", "10", "5"), ("20 s", "30", "0"))


def test_shares_table_has_a_dash_where_nothing_was_computed() -> None:
    rows = shares(OVER_TIME).rows
    assert rows == (("10 s", "20\u00a0%", "0\u00a0%"), ("20 s", "–", "25\u00a0%"))


def test_lengths_table_has_samples_and_share_of_each_bin() -> None:
    histogram = [{"from": 0, "to": 0, "rows": 1}, {"from": 9, "to": 10, "rows": 3}]
    plot = lengths("prompt-lengths", "Prompt lengths", histogram, "explanation")
    assert plot.rows == (("0", "1", "25\u00a0%"), ("9–10", "3", "75\u00a0%"))


def test_replica_map_sorts_by_utilisation_only_a_part_of_the_replicas() -> None:
    busy = replica("busy", utilisation=0.9)
    idle = replica("idle", utilisation=0.1)
    without_profile = replica("without-profile", busy_over_time=None)

    complete = replica_map(OVER_TIME, [busy, idle])
    partial = replica_map(OVER_TIME, [busy, idle, without_profile])

    assert complete is not None
    assert complete.title == "Busy share of each replica, all 2"
    assert [row[0] for row in complete.rows] == ["busy", "idle"]
    assert partial is not None
    assert partial.title == "Busy share of each replica, the 2 least busy of 3"
    assert [row[0] for row in partial.rows] == ["idle", "busy"]


def test_replica_map_table_has_how_a_replica_ended() -> None:
    replicas = [replica("a"), replica("b", lost="died"), replica("c", retired="not needed")]
    plot = replica_map(OVER_TIME, replicas)
    assert plot is not None
    assert [row[-1] for row in plot.rows] == ["", "lost", "let go"]


def test_replica_map_shortens_names_and_accepts_replicas_without_info() -> None:
    plot = replica_map(OVER_TIME, [replica("r" * 30, info=None)])
    assert plot is not None
    assert plot.title == "Busy share of each replica, the only one"
    assert plot.rows[0][:2] == ("r" * 23 + "…", "")


def test_replica_map_is_none_without_busy_shares() -> None:
    assert replica_map(OVER_TIME, [replica("a", busy_over_time=None)]) is None


def test_tail_table_has_time_before_the_end_by_idle_replicas() -> None:
    plot = tail([replica("a", 20.0), replica("b", 5.0), replica("c", 12.0)], 20.0)
    assert plot is not None
    assert plot.rows == (("1 of 3", "15 s"), ("2 of 3", "8 s"), ("3 of 3", "0 s"))


def test_tail_is_none_for_one_replica_and_when_none_ran_out_of_work() -> None:
    assert tail([replica("a", 5.0)], 20.0) is None
    assert tail([replica("a"), replica("b")], 20.0) is None


def test_failures_plot_has_only_series_with_failures() -> None:
    plot = failures(OVER_TIME)
    assert plot is not None
    assert plot.header == ("until", "requests queued again", "replicas lost")
    assert plot.rows == (("10 s", "3", "0"), ("20 s", "0", "1"))


def test_failures_is_none_without_failures() -> None:
    assert failures({**OVER_TIME, "retries": [0.0, 0.0], "losses": [0.0, 0.0]}) is None


def test_capacity_table_has_compilation_and_loading() -> None:
    times = {"up_s": [10.0, 20.0], "busy_s": [2.0, 18.0]}
    early = capacity(OVER_TIME | times)
    assert early.rows[0] == ("10 s", "1.0", "0.2", "0.0", "0.0", "20\u00a0%"), (
        "a report of an earlier version"
    )
    times |= {"compile_s": [5.0, 0.0], "load_s": [10.0, 0.0]}
    plot = capacity(OVER_TIME | times)
    assert plot.rows[0] == ("10 s", "1.0", "0.2", "0.5", "1.0", "20\u00a0%")
    assert plot.rows[1] == ("20 s", "2.0", "1.8", "0.0", "0.0", "90\u00a0%")
