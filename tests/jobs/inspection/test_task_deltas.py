"""Differences of evaluations by task: paired by document, sums of all tasks first."""

from pathlib import Path

import pytest
from scipy.stats import binomtest

from jobs.inspection.task_deltas import (
    ALL_TASKS,
    LISTED_DOCUMENTS,
    TaskDelta,
    delta_as_json,
    is_evaluation,
    task_deltas,
)
from pipeline.evals import scoring
from pipeline.evals.scoring import Sample
from pipeline.output.publication import to_parquet

METRIC = "acc,none"


def write(folder: Path, tasks: dict[str, list[float]], answer: str = "A") -> str:
    """Writes the samples of an evaluation: the values of each task's documents."""
    folder.mkdir()
    samples = []
    for task, values in tasks.items():
        for number, value in enumerate(values):
            samples.append(Sample(f"{task}/{number}", task, METRIC, value, answer, 0.5))
    (folder / "samples.parquet").write_bytes(to_parquet(scoring.to_table(samples)))
    return str(folder)


def by_task(deltas: list[TaskDelta]) -> dict[str, TaskDelta]:
    return {delta.task: delta for delta in deltas}


def test_deltas_are_paired_with_interval_and_exact_test(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x": [1.0] * 40 + [0.0] * 10, "y": [1.0, 0.0]})
    b = write(tmp_path / "b", {"x": [0.0] * 30 + [1.0] * 20, "y": [1.0, 0.0]})
    deltas = task_deltas(a, b)
    assert [delta.task for delta in deltas] == [ALL_TASKS, "x", "y"]
    x = by_task(deltas)["x"]
    assert (x.value_a, x.value_b) == (0.8, 0.4)
    assert x.difference.value == pytest.approx(-0.4)
    assert (x.difference.better, x.difference.worse) == (10, 30)
    assert x.difference.p_value == pytest.approx(binomtest(10, 40).pvalue)
    assert x.difference.low < -0.4 < x.difference.high < 0
    assert len(x.changes) == LISTED_DOCUMENTS
    assert by_task(deltas)[ALL_TASKS].difference.documents == 52
    assert not by_task(deltas)[ALL_TASKS].changes
    assert not by_task(deltas)["y"].difference.certain


def test_documents_of_one_evaluation_alone_are_counted(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x": [1.0, 1.0, 1.0], "only_a": [1.0]})
    b = write(tmp_path / "b", {"x": [1.0, 0.0]}, answer="B")
    [delta] = task_deltas(a, b)
    assert (delta.only_a, delta.only_b, delta.difference.documents) == (1, 0, 2)
    assert delta.changed_answers == 2
    figures = delta_as_json(delta)
    assert figures["changes"][0]["id"] == "x/1"
    assert figures["difference"] == -0.5


def test_evaluation_is_a_folder_with_samples(tmp_path: Path) -> None:
    assert is_evaluation(write(tmp_path / "a", {"x": [1.0]}))
    assert not is_evaluation(str(tmp_path))
