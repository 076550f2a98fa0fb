"""Tables and labels of the plots; test_page.py draws them on a page."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.evals.comparison import Difference
from pipeline.evals.history import Entry
from pipeline.evals.report.plots import (
    MAX_RUNS,
    calibration,
    differences,
    metric_name,
    tasks_of_group,
    trend,
)
from pipeline.evals.scoring import Sample

FIRST = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)


def entry(task: str, value: float, number: int = 0, name: str = "") -> Entry:
    return Entry(
        run=f"run{number}",
        at=FIRST + timedelta(days=number),
        name=name,
        model=None,
        checkpoint=None,
        git_commit=None,
        task=task,
        metric="acc,none",
        value=value,
        stderr=None,
        count=1200,
        failed=0,
        documents="digest",
    )


def sample(number: int, value: float, confidence: float) -> Sample:
    return Sample(f"mmlu_anatomy/{number}", "mmlu_anatomy", "acc,none", value, "A", confidence)


def difference(value: float, *, regression: bool) -> Difference:
    return Difference(
        value=value,
        low=value - 0.02,
        high=value + 0.02,
        better=1,
        worse=2,
        documents=100,
        p_value=0.01,
        p_adjusted=0.02,
        margin=0.01,
        detectable_loss=0.05,
        certain=regression,
        regression=regression,
    )


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("acc,none", "mmlu: acc"),
        ("pass@1,create_test", "mmlu: pass@1"),
        ("exact_match,strict-match", "mmlu: exact_match, strict-match"),
    ],
)
def test_metric_name_omits_filters_without_meaning(metric: str, name: str) -> None:
    assert metric_name("mmlu", metric) == name


def test_trend_shows_the_latest_runs_by_name_or_time() -> None:
    entries = [entry("mmlu", 0.5, number) for number in range(MAX_RUNS)]
    entries.append(entry("mmlu", 0.25, MAX_RUNS, name="night"))
    rows = trend({("mmlu", "acc,none"): entries}, {("mmlu", "acc,none"): 0.25}).rows
    assert len(rows) == MAX_RUNS
    assert rows[0] == ("2026-03-02 02:30", "2026-03-02 02:30 UTC", "mmlu: acc", "50\u00a0%", "N/A")
    assert rows[-1][1:4] == ("night", "mmlu: acc", "25\u00a0%")


def test_tasks_are_ranked_by_value_then_name() -> None:
    entries = [
        entry("mmlu_virology", 0.25),
        entry("mmlu_college_physics", 0.5),
        entry("mmlu_anatomy", 0.25),
    ]
    groups = dict.fromkeys(["mmlu_virology", "mmlu_college_physics", "mmlu_anatomy"], "stem")
    rows = tasks_of_group(entries, {"mmlu_anatomy": 0.75}, groups, "Subjects").rows
    assert [row[0] for row in rows] == ["college physics", "anatomy", "virology"]
    assert rows[1] == ("anatomy", "stem", "25\u00a0%", "N/A", "1,200", "75\u00a0%")
    assert rows[2][-1] == "–"


def test_calibration_averages_each_occupied_bin() -> None:
    plot = calibration([sample(0, 1.0, 0.25), sample(1, 0.0, 0.27), sample(2, 1.0, 1.0)])
    assert plot.rows == (
        ("20–30\u00a0%", "2", "26\u00a0%", "50\u00a0%"),
        ("90–100\u00a0%", "1", "100\u00a0%", "100\u00a0%"),
    )
    # two of three documents lie 0.5 - 0.26 above the line
    assert "16\u00a0% (expected calibration error)" in plot.explanation


def test_differences_are_in_points_with_their_interval() -> None:
    by_name = [
        ("mmlu, last", difference(-0.05, regression=True)),
        ("mmlu, best", difference(0.01, regression=False)),
    ]
    assert differences(by_name).rows == (
        ("mmlu, last", "-5.00", "-7.00", "-3.00", "yes"),
        ("mmlu, best", "+1.00", "-1.00", "+3.00", "no"),
    )
