from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.evals.answers import Answers
from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.history import History
from pipeline.evals.suite import Answer, EvalRequest

DOCUMENTS = 40
REQUESTS = [
    EvalRequest(f"gsm8k_cot/{number}", "gsm8k_cot", number, "q", f"{number}")
    for number in range(DOCUMENTS)
]
NIGHT = datetime(2026, 3, 1, tzinfo=UTC)


def answers_with(right: int) -> Answers:
    """Answers of which the first `right` are right."""
    answers: Answers = {}
    for number, request in enumerate(REQUESTS):
        target = request.target if number < right else "-1"
        answers[request.id] = (Answer(text=f"The answer is {target}."),)
    return answers


def run(number: int, right: int, history_url: Path, setup: str | None = None) -> Evaluation:
    """Evaluates a run with `right` right answers and adds it to the history."""
    history = History.load(str(history_url))
    info = RunInfo(f"run{number}", NIGHT + timedelta(days=number), f"night {number}", setup=setup)
    evaluation = evaluate(
        REQUESTS, ["gsm8k_cot"], answers_with(right), info, history, Rules(margin=0.01)
    )
    history.add(evaluation.entries, evaluation.samples)
    return evaluation


def references(evaluation: Evaluation) -> set[tuple[str, str]]:
    return {(comparison.against, comparison.before.run) for comparison in evaluation.comparisons}


def test_first_run_has_no_comparison(tmp_path: Path) -> None:
    evaluation = run(0, 30, tmp_path)
    assert evaluation.comparisons == ()
    assert {entry.value for entry in evaluation.headlines} == {0.75}


def test_run_is_compared_with_the_last_and_the_best(tmp_path: Path) -> None:
    run(0, 30, tmp_path)
    assert references(run(1, 20, tmp_path)) == {("last and best", "run0")}
    assert references(run(2, 10, tmp_path)) == {("last", "run1"), ("best", "run0")}


def test_best_of_equal_runs_is_the_latest(tmp_path: Path) -> None:
    run(0, 30, tmp_path)
    run(1, 30, tmp_path)
    assert references(run(2, 10, tmp_path)) == {("last and best", "run1")}


def test_comparison_holds_documents_that_changed(tmp_path: Path) -> None:
    run(0, 30, tmp_path)
    comparison = run(1, 28, tmp_path).comparisons[0]
    assert {change.now.id for change in comparison.changes} == {"gsm8k_cot/28", "gsm8k_cot/29"}
    for change in comparison.changes:
        assert (change.before.value, change.now.value) == (1.0, 0.0)
    assert comparison.difference.value == pytest.approx(-2 / DOCUMENTS)


def test_large_loss_is_a_regression_and_a_gain_is_not(tmp_path: Path) -> None:
    run(0, 35, tmp_path)
    loss = run(1, 10, tmp_path)
    assert loss.regressions == loss.comparisons
    gain = run(2, 40, tmp_path)
    assert gain.comparisons
    assert gain.regressions == ()


def test_changes_of_the_same_setup_are_marked(tmp_path: Path) -> None:
    run(0, 30, tmp_path, setup="a")
    [same, _] = run(1, 29, tmp_path, setup="a").comparisons
    assert same.is_same_setup
    last = next(
        comparison
        for comparison in run(2, 28, tmp_path, setup="b").comparisons
        if comparison.against == "last"
    )
    assert not last.is_same_setup
    unknown = run(3, 28, tmp_path).comparisons[0]
    assert not unknown.is_same_setup


def test_p_values_are_adjusted_for_all_comparisons_of_a_night(tmp_path: Path) -> None:
    run(0, 35, tmp_path)
    [strict, flexible] = run(1, 10, tmp_path).comparisons
    for comparison in (strict, flexible):
        difference = comparison.difference
        assert difference.p_adjusted == pytest.approx(2 * difference.p_value)


def test_metrics_json_counts_failed_requests_and_comparisons(tmp_path: Path) -> None:
    run(0, 30, tmp_path)
    answers = answers_with(30)
    answers["gsm8k_cot/3"] = (Answer(error="engine_crash: the row alone kills its replica"),)
    info = RunInfo("run1", NIGHT + timedelta(days=1), "night 1")
    history = History.load(str(tmp_path))
    evaluation = evaluate(REQUESTS, ["gsm8k_cot"], answers, info, history, Rules())

    metrics = evaluation.metrics()
    assert metrics["failed"] == evaluation.failed == 1
    assert {entry.failed for entry in evaluation.entries} == {1}
    comparisons = metrics["comparisons"]
    assert isinstance(comparisons, list)
    assert comparisons[0]["run"] == "run0"
    assert (comparisons[0]["before"], comparisons[0]["now"]) == (0.75, 0.725)
    assert (comparisons[0]["better"], comparisons[0]["worse"]) == (0, 1)
