from dataclasses import replace

import pytest

from actors.protocol.events import Activity
from actors.protocol.messages import (
    Completion,
    ReplicaInfo,
    ReplicaStats,
    RowRef,
    Score,
    logprobs,
    token_ids,
)
from pipeline.errors import ErrorBudgetError
from pipeline.monitoring.progress import EXAMPLE_CHARS, EXAMPLES, ROWS_BEFORE_EARLY_STOP, Progress
from pipeline.monitoring.row_counts import error_budget


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def good(row: int, sample: int = 0, samples: int = 1) -> Completion:
    return Completion(
        RowRef(0, row, sample, samples),
        token_ids=token_ids([5] * 10),
        prompt_tokens=30,
        cached_tokens=6,
    )


def bad(row: int) -> Completion:
    return Completion.failed(RowRef(0, row), "empty_prompt", "none")


def test_snapshot_has_the_figures_of_a_run() -> None:
    clock = Clock()
    progress = Progress(10, replicas=lambda: (1, 2), cost_per_replica_hour=36.0, clock=clock)
    progress.replica_ready("a", None)
    progress.replica_stats(
        "a", ReplicaStats(prefill_tokens=90, prefill_positions=100, busy_s=5, up_s=10)
    )
    # overtaken
    progress.replica_stats(
        "a", ReplicaStats(prefill_tokens=10, prefill_positions=50, busy_s=1, up_s=2)
    )
    clock.now = 10.0
    answered = [good(0), good(1), good(2, 0, 2), good(2, 1, 2), bad(3)]
    assert list(progress.count(answered)) == answered
    now = progress.snapshot()
    assert (now.rows, now.errors, now.tokens_in, now.tokens_out) == (4, 1, 120, 40)
    assert (now.tokens_in_per_s, now.tokens_out_per_s) == (12.0, 4.0)
    assert now.padding == pytest.approx(0.1)
    assert now.eta_s == pytest.approx(6 * 40 / 16)
    assert now.replica_hours == pytest.approx(10 / 3600)
    assert now.cost == pytest.approx(0.1)
    assert (now.phase, now.codes) == ("running", {"empty_prompt": 1})


def test_phase_follows_replicas_that_start_and_compile() -> None:
    clock = Clock()
    progress = Progress(10, clock=clock)
    replicas = [0, 2]
    activity = [Activity()]
    progress.follow_start(lambda: (replicas[0], replicas[1]), lambda: activity[0])
    assert progress.snapshot().phase == "starting replicas"
    activity[0] = Activity("loading 37 %", "loading")
    assert (progress.snapshot().phase, progress.snapshot().activity) == ("loading", "loading 37 %")
    replicas[0] = 2
    progress.begin()
    list(progress.count([good(0)]))
    clock.now = 10.0
    assert progress.snapshot().phase == "running"
    assert progress.snapshot().eta_s == pytest.approx(90.0)
    activity[0] = Activity("2 compiling 3/9", "compiling", compiling=2)
    assert (progress.snapshot().phase, progress.snapshot().eta_s) == ("compiling", None)
    activity[0] = Activity("compiling 3/9", "compiling", compiling=1)
    assert progress.snapshot().phase == "running"


def test_eta_leaves_out_the_time_of_compilation() -> None:
    clock = Clock()
    progress = Progress(10, replicas=lambda: (2, 2), clock=clock)
    for name in ("a", "b"):
        progress.replica_ready(name, None)
    clock.now = 110.0
    for name in ("a", "b"):
        progress.replica_stats(name, ReplicaStats(busy_s=20, compile_s=90, up_s=110))
    list(progress.count([good(row) for row in range(5)]))
    assert progress.snapshot().eta_s == pytest.approx(20.0)


def test_report_has_the_figures_of_the_snapshot() -> None:
    clock = Clock()
    progress = Progress(3, clock=clock)
    progress.replica_ready("a", None)
    progress.batch_retried(4)
    clock.now = 4.0
    progress.replica_stats("a", ReplicaStats(busy_s=2, up_s=10))
    list(progress.count([good(0), good(1), bad(2)]))
    progress.replica_lost("a", "killed")
    clock.now = 8.0
    report = progress.report()
    assert report["rows"] == {"total": 3, "answered": 3, "failed": 1, "shards_committed": 0}
    assert report["tokens"] == {"prompt": 60, "completion": 20, "cached": 12}
    assert report["prefix_reuse"] == 0.2
    assert report["prompt_length_histogram"] == [{"from": 29, "to": 32, "rows": 2}]
    assert report["errors_by_code"] == {"empty_prompt": 1}
    assert report["retries"] == 4
    [replica] = report["replicas"]  # type: ignore[misc]
    assert (replica["up_s"], replica["utilisation"], replica["lost"]) == (4.0, 0.5, "killed")
    assert report["replica_hours"] == pytest.approx(4 / 3600)


def test_report_has_times_of_the_start_reasons_and_log_probs() -> None:
    clock = Clock()
    clock.now = 7.0
    progress = Progress(3, clock=clock, job_began_s=5.0)
    assert progress.report()["ready_s"] is None
    clock.now = 65.0
    progress.begin()
    info = ReplicaInfo("a", "node", ("cpu",), "1x1", 1, 1, 1, 4, 42.0)
    progress.replica_ready("a", info)
    progress.replica_stats("a", ReplicaStats(compile_s=3.0, programs=2))
    stopped = replace(good(0), finish_reason="stop", token_logprobs=logprobs([-0.1, -0.1]))
    list(progress.count([stopped, replace(good(1), finish_reason="length"), bad(2)]))
    report = progress.report()
    times = [report[name] for name in ("ready_s", "load_s", "compile_s", "programs")]
    assert times == [60.0, 42.0, 3.0, 2]
    assert report["finish_reasons"] == {"stop": 1, "length": 1}
    assert report["logprob_histogram"] == [{"from": -0.25, "to": 0.0, "tokens": 2}]


def test_error_budget_stops_long_runs_early() -> None:
    short = Progress(10, max_error_rows=1)
    assert len(list(short.count(map(bad, range(10))))) == 10
    assert short.over_budget
    long = Progress(10_000, max_error_rows=100)
    seen: list[Completion] = []
    with pytest.raises(
        ErrorBudgetError, match=r"more than the 100 that --max-error-rate allows \(empty_prompt"
    ):
        seen.extend(long.count(map(bad, range(10_000))))
    assert len(seen) == ROWS_BEFORE_EARLY_STOP


def test_points_over_time_are_bounded() -> None:
    clock = Clock()
    progress = Progress(10, clock=clock)
    for second in range(5000):
        clock.now = float(second)
        progress.snapshot()
    tokens_per_s = progress.report()["tokens_per_s"]
    assert isinstance(tokens_per_s, dict)
    assert 60 < len(tokens_per_s["over_time"]) <= 120
    assert tokens_per_s["over_time"][-1]["s"] == 4999


def test_figures_over_time_add_up_to_totals() -> None:
    clock = Clock()
    progress = Progress(100, clock=clock)
    progress.replica_ready("a", None)
    for row in range(100):
        clock.now += 1.7
        progress.replica_stats(
            "a",
            ReplicaStats(
                prefill_tokens=9 * row,
                prefill_positions=10 * row,
                busy_s=clock.now / 2,
                up_s=clock.now,
            ),
        )
        list(progress.count([bad(row) if row % 10 == 9 else good(row)]))
    progress.batch_retried(3)
    over = progress.report()["over_time"]
    assert isinstance(over, dict)
    sums = {
        name: pytest.approx(sum(values), abs=0.1) for name, values in over.items() if name != "s"
    }
    assert sums == {
        "rows": 100,
        "prompt": 90 * 30,
        "completion": 90 * 10,
        "cached": 90 * 6,
        "errors": 10,
        "retries": 3,
        "losses": 0,
        "prefill_tokens": 9 * 99,
        "prefill_positions": 10 * 99,
        "extend_tokens": 9 * 99,
        "extend_positions": 10 * 99,
        "busy_s": 85.0,
        "compile_s": 0,
        "load_s": 0,
        "up_s": 170.0,
    }
    assert {len(values) for values in over.values()} == {len(over["s"])}


@pytest.mark.parametrize("length", [*range(70), 511, 512, 513, 8192])
def test_length_falls_into_the_bin_of_its_range(length: int) -> None:
    progress = Progress(1)
    list(progress.count([Completion(RowRef(0, 0), prompt_tokens=length)]))
    [found] = progress.report()["prompt_length_histogram"]  # type: ignore[misc]
    assert found["from"] <= length <= found["to"] <= max(8, 1.25 * length + 1)
    assert found["to"] == length or length & (length - 1)


def test_error_examples_are_few_short_and_redacted() -> None:
    progress = Progress(100)
    message = (
        "cannot read s3://key:secret@bucket/in?X-Amz-Signature=abc123&part=2, user@example "
        + "x" * 1000
    )
    failed = [
        Completion.failed(RowRef(3, row), code, message, row_id=f"id-{row}")
        for row in range(50)
        for code in ("empty_prompt", "engine_crash")
    ]
    list(progress.count(failed))
    examples = progress.report()["error_examples"]
    assert isinstance(examples, dict)
    assert {code: len(found) for code, found in examples.items()} == {
        "empty_prompt": EXAMPLES,
        "engine_crash": EXAMPLES,
    }
    first = examples["empty_prompt"][0]
    assert (first["id"], first["shard"], first["row"]) == ("id-0", 3, 0)
    assert len(first["message"]) == EXAMPLE_CHARS
    assert first["message"].startswith(
        "cannot read s3://bucket/in?X-Amz-Signature=…&part=2, user@example xxx"
    )


def test_elapsed_time_excludes_waiting_for_replicas() -> None:
    clock = Clock()
    progress = Progress(10, clock=clock)
    clock.now += 100.0
    progress.begin()
    clock.now += 4.0
    assert progress.snapshot().elapsed_s == 4.0


def test_budget_of_29_of_100_rows_is_kept_by_29_failed_rows() -> None:
    progress = Progress(100, max_error_rows=error_budget(100, 0.29))
    list(progress.count(map(bad, range(29))))
    assert not progress.over_budget
    list(progress.count([bad(29)]))
    assert progress.over_budget


def test_early_stop_needs_more_failed_rows_than_the_budget() -> None:
    progress = Progress(10_000, max_error_rows=ROWS_BEFORE_EARLY_STOP)
    list(progress.count(map(bad, range(ROWS_BEFORE_EARLY_STOP))))
    with pytest.raises(ErrorBudgetError):
        list(progress.count([bad(ROWS_BEFORE_EARLY_STOP)]))


def test_snapshot_only_reads() -> None:
    clock = Clock()
    observed = Progress(10, clock=clock)
    unobserved = Progress(10, clock=clock)
    for row in range(5):
        clock.now += 30.0
        list(observed.count([good(row)]))
        list(unobserved.count([good(row)]))
        assert observed.snapshot() == observed.snapshot()
    assert observed.snapshot().tokens_out_per_s == unobserved.snapshot().tokens_out_per_s
    assert observed.snapshot().progressed_at - unobserved.snapshot().progressed_at < 1.0


def test_row_of_several_samples_is_one_row_in_the_report() -> None:
    progress = Progress(10)
    list(progress.count([good(2, 0, 2), good(2, 1, 2), good(3, 0, 2)]))
    report = progress.report()
    assert report["rows"]["answered"] == 1  # type: ignore[index]
    assert sum(report["over_time"]["rows"]) == 1  # type: ignore[index]


def test_scored_tokens_are_read_not_generated() -> None:
    progress = Progress(1)
    scores = (Score(-1.0, True, 4), Score(-2.0, False, 3))
    list(progress.count([Completion(RowRef(0, 0), prompt_tokens=30, scores=scores)]))
    now = progress.snapshot()
    assert (now.tokens_in, now.tokens_out) == (37, 0)


def test_time_of_last_progress_is_that_of_the_last_complete_row() -> None:
    clock = Clock()
    progress = Progress(9, clock=clock)
    began_at = progress.snapshot().progressed_at
    clock.now = 5.0
    list(progress.count([good(0)]))
    clock.now = 8.0
    list(progress.count([good(1, 0, 2)]))
    assert progress.snapshot().progressed_at - began_at == pytest.approx(5.0)
