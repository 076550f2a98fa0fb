import io
import threading

import pytest

from actors.messages import Completion, ReplicaStats, RowRef, token_ids
from pipeline.errors import ErrorBudgetError
from pipeline.progress import ROWS_BEFORE_EARLY_STOP, Progress, ProgressLine, Snapshot


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def good(row: int, sample: int = 0, samples: int = 1) -> Completion:
    return Completion(RowRef(0, row, sample, samples), token_ids=token_ids([5] * 10), prompt_tokens=30, cached_tokens=6)


def bad(row: int) -> Completion:
    return Completion.failed(RowRef(0, row), "empty_prompt", "none")


def test_figures_of_a_run() -> None:
    clock = Clock()
    progress = Progress(10, replicas=lambda: (1, 2), cost_per_replica_hour=36.0, clock=clock)
    progress.replica_ready("a", None)
    progress.replica_stats("a", ReplicaStats(extend_tokens=90, extend_positions=100, busy_s=5, up_s=10))
    progress.replica_stats("a", ReplicaStats(extend_tokens=10, extend_positions=50, busy_s=1, up_s=2))  # overtaken
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
    assert now.line() == ("rows 4/10 | tokens/s in 12 out 4 | padding 10.0% | errors 1 | replicas 1/2 | ETA 0m15s | cost 0.10")


def test_the_report_has_the_same_figures() -> None:
    clock = Clock()
    progress = Progress(3, clock=clock)
    progress.replica_ready("a", None)
    progress.replica_stats("a", ReplicaStats(busy_s=5, up_s=10))
    progress.batch_retried(4)
    clock.now = 4.0
    list(progress.count([good(0), good(1), bad(2)]))
    progress.replica_lost("a", "killed")
    clock.now = 8.0
    report = progress.report()
    assert report["rows"] == {"total": 3, "answered": 3, "failed": 1, "shards_committed": 0}
    assert report["tokens"] == {"prompt": 60, "completion": 20, "cached": 12}
    assert report["prefix_reuse"] == 0.2
    assert report["prompt_length_histogram"] == [{"from": 16, "to": 31, "rows": 2}]
    assert report["errors_by_code"] == {"empty_prompt": 1}
    assert report["retries"] == 4
    [replica] = report["replicas"]  # type: ignore[misc]
    assert (replica["up_s"], replica["utilisation"], replica["lost"]) == (4.0, 0.5, "killed")
    assert report["replica_hours"] == pytest.approx(4 / 3600)


def test_too_many_errors_stop_a_long_run_early_and_a_short_one_at_its_end() -> None:
    short = Progress(10, max_error_rows=1)
    assert len(list(short.count(map(bad, range(10))))) == 10
    assert short.over_budget
    long = Progress(10_000, max_error_rows=100)
    seen: list[Completion] = []
    with pytest.raises(ErrorBudgetError, match=r"more than the 100 that --max-error-rate allows \(empty_prompt"):
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
    assert 400 < len(tokens_per_s["over_time"]) <= 1000


def test_a_log_gets_plain_lines_and_sinks_the_same_snapshots() -> None:
    stream, seen, told = io.StringIO(), list[Snapshot](), threading.Event()

    def sink(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        told.set()

    with ProgressLine(Progress(7), stream=stream, every_s=0.01, sinks=[sink]):
        assert told.wait(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(seen) >= 2
    assert all(line.startswith("rows 0/7 | ") for line in lines)
