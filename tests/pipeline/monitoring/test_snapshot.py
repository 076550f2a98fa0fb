from dataclasses import replace

import pytest

from pipeline.monitoring.snapshot import Snapshot

SNAPSHOT = Snapshot(
    rows=1500,
    rows_total=20_000,
    tokens_in=4000,
    tokens_out=100,
    tokens_in_per_s=1234.4,
    tokens_out_per_s=56.6,
    padding=0.125,
    errors=0,
    retries=0,
    up=3,
    wanted=4,
    elapsed_s=10.0,
    eta_s=61.9,
    replica_hours=0.5,
    cost=None,
)


def test_line_omits_retries_cost_and_note_if_absent() -> None:
    assert SNAPSHOT.line() == (
        "rows 1,500/20,000 | tokens/s in 1,234 out 57 | padding 12.5% | errors 0 | replicas 3/4"
        " | ETA 1m01s"
    )


def test_line_places_retries_before_replicas_and_cost_last() -> None:
    parts = replace(SNAPSHOT, retries=1200, cost=1234.5, note="stalled").line().split(" | ")
    assert parts[3:] == [
        "errors 0",
        "retries 1,200",
        "replicas 3/4",
        "ETA 1m01s",
        "cost 1,234.50",
        "stalled",
    ]


def test_line_prints_a_cost_of_zero() -> None:
    assert replace(SNAPSHOT, cost=0.0).line().endswith(" | cost 0.00")


@pytest.mark.parametrize(
    ("eta_s", "duration"),
    [(None, "?"), (-5.0, "0m00s"), (59.99, "0m59s"), (3600.0, "1h00m00s"), (90_061.0, "25h01m01s")],
)
def test_line_formats_the_time_left(eta_s: float | None, duration: str) -> None:
    assert replace(SNAPSHOT, eta_s=eta_s).line().endswith(f"ETA {duration}")


def test_prefix_reuse_is_the_share_of_input_tokens() -> None:
    assert replace(SNAPSHOT, cached=1000).prefix_reuse == 0.25
    assert replace(SNAPSHOT, tokens_in=0).prefix_reuse == 0.0


def test_line_has_what_replicas_do_that_do_not_compute() -> None:
    line = replace(SNAPSHOT, activity="compiling 3/9", note="stalled").line()
    assert line.endswith(" | ETA 1m01s | compiling 3/9 | stalled")
