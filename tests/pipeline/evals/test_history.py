"""Runs that are added to a history one after the other, and compared with the last and the best."""

from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.history import History, run_identity
from pipeline.storage import StoredObject
from tests.pipeline.evals.own_runs import night, requests

HEADLINES = {
    ("mmlu", "acc,none"),
    ("gsm8k_cot", "exact_match,strict-match"),
    ("gsm8k_cot", "exact_match,flexible-extract"),
    ("humaneval", "pass@1,create_test"),
}


def test_run_is_compared_with_last_and_best_run(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    first = night(0, asked, 0.6, history)
    assert (first.comparisons, first.regressions) == ((), ())
    assert {(entry.task, entry.metric) for entry in first.headlines} == HEADLINES
    second, third = night(1, asked, 1.0, history), night(2, asked, 0.8, history)
    assert {(each.against, each.before.run) for each in second.comparisons} == {
        ("last and best", "run0")
    }
    fourth = night(3, asked, 0.0, history)
    found = {(each.now.task, each.now.metric): {} for each in fourth.comparisons}  # type: ignore[var-annotated]
    for each in fourth.comparisons:
        found[each.now.task, each.now.metric][each.against] = each
    assert set(found) == HEADLINES
    mmlu = found["mmlu", "acc,none"]
    assert {against: each.before.run for against, each in mmlu.items()} == {
        "last": "run2",
        "best": "run1",
    }
    assert (
        mmlu["best"].difference.value,
        mmlu["best"].difference.worse,
        mmlu["best"].difference.regression,
    ) == (-1.0, 9, True)
    assert mmlu["last"].difference.value == -next(
        entry.value for entry in third.headlines if entry.task == "mmlu"
    )
    assert {change.now.id for change in mmlu["best"].changes} == {
        each.id for each in asked if each.task.startswith("mmlu")
    }
    told = fourth.metrics()["comparisons"]
    assert isinstance(told, list)
    assert sum(each["regression"] for each in told) == len(fourth.regressions) > 0
    assert [entry.run for entry in fourth.earlier["mmlu", "acc,none"]] == ["run0", "run1", "run2"]


def test_runs_over_different_documents_are_not_compared(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, asked, 0.6, history)
    fewer = [request for request in asked if request.id != "mmlu_anatomy/0"]
    found = night(1, fewer, 0.6, history)
    assert {each.now.task for each in found.comparisons} == {"gsm8k_cot", "humaneval"}
    assert found.earlier["mmlu", "acc,none"] == []
    assert [entry.run for entry in found.earlier["mmlu_econometrics", "acc,none"]] == ["run0"]


def test_run_that_is_reported_twice_is_stored_once(
    tmp_path: Path,
) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    first = night(0, asked, 0.6, history)
    night(1, asked, 0.7, history)
    again = History.load(history.url)
    assert again.began("run0") == first.info.reported_at
    assert again.began("run9") is None
    assert not again.add(first.entries, first.samples)
    assert night(0, asked, 0.6, history) == first
    assert {entry.run for entry in History.load(history.url).entries} == {"run0", "run1"}


def test_entries_and_samples_survive_object_storage(s3_url: str, tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(f"{s3_url}/history")
    found = night(0, asked, 0.6, history)
    kept = History.load(history.url)
    assert set(kept.entries) == set(found.entries)
    assert tuple(kept.samples("run0")) == found.samples
    assert night(1, asked, 0.6, history).comparisons[0].difference.value == 0.0


def test_run_without_history_is_not_compared(tmp_path: Path) -> None:
    found = night(0, requests(tmp_path / "data"), 0.6, History(None))
    assert found.comparisons == ()
    assert not History(None).add(found.entries, found.samples)


def test_history_of_foreign_columns_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "history" / "runs"
    requests(folder)
    with pytest.raises(DatasetError, match=r"no part of a history.*'run'"):
        History.load(str(tmp_path / "history"))


def test_run_identity_depends_on_documents_outputs_and_name() -> None:
    outputs = [StoredObject("a", 1, "v")]
    known = {
        run_identity("d", outputs, ""),
        run_identity("e", outputs, ""),
        run_identity("d", outputs, "name"),
    }
    assert len(known | {run_identity("d", [StoredObject("a", 1, "w")], "")}) == 4
    assert run_identity("d", outputs, "") in known
