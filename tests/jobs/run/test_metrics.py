"""Prometheus metrics of a run: one per figure, monotonic counters, and the exit state."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from actors.protocol.messages import ReplicaStats
from jobs.run.metrics import (
    COST_BUDGET,
    METRICS,
    PREFIX,
    RUN_INFO,
    RUNS_ENDED,
    RUNS_STARTED,
    Metric,
    RunMetrics,
    run_label,
    tag_value,
)
from pipeline.errors import InterruptedRunError
from pipeline.monitoring.progress import Progress
from pipeline.monitoring.snapshot import Snapshot
from tests.pipeline.monitoring.test_progress import Clock, bad, good

INFO = {
    "output": "s3://key:secret@bucket/nightly/2026-11-24/",
    "model": "demo",
    "task": "score",
    "fingerprint": "f00d",
}
RUN = "2026-11-24-336afcf6"


class Series(dict[tuple[str, ...], float]):
    """What Ray would hold: by metric, then by the values of its labels."""


class FakeMetric:
    """Stands where `ray.util.metrics` has Counter and Gauge."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.keys, self.values = name, tag_keys, Series()
        assert description
        assert description[0].isupper() or description[0] == "1"

    def _key(self, tags: Mapping[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self.keys), "Ray refuses other labels than those it was told"
        return tuple(tags[key] for key in self.keys)


class FakeCounter(FakeMetric):
    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0, "Ray refuses it"
        self.values[self._key(tags)] = self.values.get(self._key(tags), 0) + value


class FakeGauge(FakeMetric):
    def set(self, value: float, tags: Mapping[str, str]) -> None:
        self.values[self._key(tags)] = value


class FakeRay(dict[str, FakeMetric]):
    """Metrics by name; call it to register one."""

    def __call__(self, metric: Metric, labels: tuple[str, ...]) -> FakeMetric:
        metric_class = FakeCounter if metric.metric_type == "counter" else FakeGauge
        name = PREFIX + metric.name
        self[name] = metric_class(name, metric.help, labels)
        return self[name]


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


def values(ray: FakeRay, name: str) -> dict[tuple[str, ...], float]:
    return dict(ray[f"grok_batch_{name}"].values)


def test_names_follow_the_conventions_of_prometheus() -> None:
    every = [*METRICS, RUN_INFO, COST_BUDGET, RUNS_STARTED, RUNS_ENDED]
    assert len({metric.name for metric in every}) == len(every)
    for metric in every:
        assert metric.name.endswith("_total") == (metric.metric_type == "counter"), metric.name
        assert metric.name == metric.name.lower()
        assert not any(
            metric.name.removesuffix("_total").endswith(unit)
            for unit in ("_s", "_ms", "_hours", "_percent")
        ), metric.name


def numbers(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields every number in a snapshot, by path."""
    for field in dataclasses.fields(value):
        each = getattr(value, field.name)
        if dataclasses.is_dataclass(each):
            yield from ((f"{field.name}.{name}", number) for name, number in numbers(each))
        elif not isinstance(each, str):
            yield field.name, each


NOT_TOLD = {
    "engine.requests",
    "engine.prompt_tokens",
    "engine.cached_tokens",
    "engine.programs",
    "engine.programs_cached",
    "engine.program_s",
    "engine.up_s",
    "finish_reasons",
    "windows",
}


def test_every_figure_of_a_snapshot_has_its_metric() -> None:
    """Each figure is changed by itself, and some metric has to notice.

    What the driver counts better, or the report has, is left out (NOT_TOLD).
    """
    engine = ReplicaStats(**{field.name: 10 for field in dataclasses.fields(ReplicaStats)})  # type: ignore[arg-type]
    plain = {
        field.name: 10
        for field in dataclasses.fields(Snapshot)
        if field.name not in {"codes", "engine", "finish_reasons", "note", "activity", "phase"}
    }
    snapshot = Snapshot(**plain, codes={"empty_prompt": 10}, engine=engine)  # type: ignore[arg-type]
    told = {metric.name: metric.value(snapshot) for metric in METRICS}
    unnoticed = set()
    for path, value in numbers(snapshot):
        more: Any = {"empty_prompt": 11} if isinstance(value, Mapping) else value + 1
        inner = path.removeprefix("engine.")
        changed = (
            {"engine": dataclasses.replace(engine, **{inner: more})}
            if inner != path
            else {path: more}
        )
        other = dataclasses.replace(snapshot, **changed)
        if {metric.name: metric.value(other) for metric in METRICS} == told:
            unnoticed.add(path)
    assert unnoticed == NOT_TOLD


def test_figures_of_the_progress_line_have_the_run_label(ray: FakeRay) -> None:
    clock = Clock()
    progress = Progress(10, replicas=lambda: (1, 2), cost_per_replica_hour=36.0, clock=clock)
    progress.replica_ready("a", None)
    progress.replica_stats(
        "a", ReplicaStats(prefill_tokens=90, prefill_positions=100, busy_s=5, up_s=10)
    )
    progress.batches_in_flight(3)
    made = RunMetrics(progress, INFO, cost_budget=5.0, register=ray)
    clock.now = 10.0
    with made:
        list(progress.count([good(0), good(1), bad(2)]))
        progress.batch_retried(4)
        progress.replica_lost("a", "killed")
        progress.replica_ready("b", None)
        progress.shard_committed()
    expected = {
        "rows_total": 3,
        "rows_planned": 10,
        "row_errors_total": 1,
        "shards_committed_total": 1,
        "prompt_tokens_total": 60,
        "completion_tokens_total": 20,
        "cached_tokens_total": 12,
        "prompt_tokens_per_second": 6,
        "completion_tokens_per_second": 2,
        "padding_ratio": 0.1,
        "prefix_reuse_ratio": 0.2,
        "request_retries_total": 4,
        "batches_in_flight": 3,
        "replicas_up": 1,
        "replicas_wanted": 2,
        "replicas_started_total": 2,
        "replicas_lost_total": 1,
        "replica_up_seconds_total": 10,
        "replica_busy_seconds_total": 5,
        "prefill_tokens_total": 90,
        "prefill_positions_total": 100,
        "elapsed_seconds": 10,
        "cost_total": 0.1,
        "cost_budget": 5,
        "runs_started_total": 1,
    }
    assert {name: values(ray, name) for name in expected} == {
        name: {(RUN,): pytest.approx(each)} for name, each in expected.items()
    }
    assert values(ray, "errors_total") == {(RUN, "empty_prompt"): 1}
    assert values(ray, "runs_ended_total") == {(RUN, "row_errors"): 1}
    assert values(ray, "run_info") == {
        (RUN, "s3://bucket/nightly/2026-11-24/", "demo", "score", "f00d"): 1
    }
    assert values(ray, "eta_seconds")[(RUN,)] == pytest.approx(7 * (80 / 3) / 8)


def test_counters_grow_by_the_change_since_the_last_export(ray: FakeRay) -> None:
    progress = Progress(9)
    with RunMetrics(progress, INFO, register=ray) as made:
        for row in range(3):
            list(progress.count([good(row), bad(row + 5)]))
            made.publish(progress.snapshot())
            made.publish(progress.snapshot())
            assert values(ray, "rows_total") == {(RUN,): 2 * row + 2}
            assert values(ray, "errors_total") == {(RUN, "empty_prompt"): row + 1}
    assert "grok_batch_cost_budget" in ray
    assert values(ray, "cost_budget") == values(ray, "cost_total") == {}


def test_interrupted_run_is_counted_as_interrupted(ray: FakeRay) -> None:
    with pytest.raises(InterruptedRunError), RunMetrics(Progress(9), INFO, register=ray):
        raise InterruptedRunError("SIGTERM")
    assert values(ray, "runs_ended_total") == {(RUN, "interrupted"): 1}


def test_time_of_last_progress_changes_with_rows_only() -> None:
    clock = Clock()
    from datetime import UTC, datetime

    progress = Progress(9, clock=clock, now=lambda: datetime.fromtimestamp(1000 + clock.now, UTC))
    assert progress.snapshot().progressed_at == 1000
    clock.now = 5.0
    list(progress.count([good(0)]))
    assert progress.snapshot().progressed_at == 1005
    clock.now = 500.0
    assert progress.snapshot().progressed_at == 1005
    progress.begin()
    assert progress.snapshot().progressed_at == 1500  # the replicas that were waited for are up


def test_metrics_are_exported_while_waiting_for_replicas(
    ray: FakeRay,
) -> None:
    clock, up = Clock(), [0]
    made = RunMetrics(Progress(1, replicas=lambda: (up[0], 4)), INFO, register=ray, now=clock)
    asked = made.published_until(lambda: clock.now > 8)
    assert not asked()
    up[0], clock.now = 3, 4.0
    assert not asked()
    assert values(ray, "replicas_up") == {(RUN,): 0}
    clock.now = 9.0
    assert asked()
    assert values(ray, "replicas_up") == {(RUN,): 3}


def test_runs_of_one_name_in_different_folders_have_different_labels() -> None:
    assert (
        run_label("s3://bucket/nightly/2026-11-24")
        == run_label("s3://key:secret@bucket/nightly/2026-11-24/")
        == RUN
    )
    assert run_label("s3://other/nightly/2026-11-24") != RUN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/run 1", "s3://bucket/run 1"),
        ("/data/größe", "/data/gr%C3%B6%C3%9Fe"),
        ("/data/\udcff\n", "/data/%FF%0A"),  # a file name that is not UTF-8
        ("/" + "a" * 300, "..." + "a" * 252),
    ],
)
def test_tag_values_are_printable_ascii(text: str, expected: str) -> None:
    assert tag_value(text) == expected


def test_run_label_of_any_letters_is_ascii(ray: FakeRay) -> None:
    output = "/data/größe-\udcff"
    assert run_label(output).startswith("gr%C3%B6%C3%9Fe-%FF-")
    with RunMetrics(Progress(1), INFO | {"output": output}, register=ray):
        pass
    for labels in values(ray, "run_info"):
        assert all(label.isascii() for label in labels)
