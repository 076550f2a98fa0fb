"""Sums over groups, and what a run is judged by.

Tests/pipeline/evals/test_goldens.py has the harness's own numbers.
"""

from pathlib import Path

import pytest

from pipeline.evals.metrics import results, scores
from pipeline.evals.requests import asked_names, to_table
from pipeline.evals.scoring import score
from pipeline.output.publication import to_parquet
from tests.pipeline.evals.own_runs import answers, requests


@pytest.mark.parametrize(
    ("asked", "groups", "headlines"),
    [
        (["mmlu"], ["mmlu_stem", "mmlu_social_sciences", "mmlu"], ["mmlu"]),
        (["mmlu_stem"], ["mmlu_stem"], ["mmlu_stem"]),
        (["mmlu_anatomy", "gsm8k_cot"], [], ["mmlu_anatomy", "gsm8k_cot"]),
        (
            ["mmlu_anatomy", "mmlu_stem", "mmlu_econometrics"],
            ["mmlu_stem"],
            ["mmlu_econometrics", "mmlu_stem"],
        ),
    ],
)
def test_groups_and_headlines_are_what_was_asked_for(
    asked: list[str], groups: list[str], headlines: list[str], tmp_path: Path
) -> None:
    all_requests = requests(tmp_path)
    found = scores(score(all_requests, answers(all_requests, 0.5)), asked)
    assert [each.name for each in found if each.is_group] == groups
    assert list(dict.fromkeys(each.name for each in found if each.headline)) == headlines


def test_a_group_weighs_every_document_alike(tmp_path: Path) -> None:
    asked = [request for request in requests(tmp_path) if request.task.startswith("mmlu")]
    given = answers(asked, 1.0)
    given |= answers([request for request in asked if request.task == "mmlu_econometrics"], 0.0)
    table = results(scores(score(asked, given), ["mmlu"]), asked)
    assert table["mmlu"]["acc,none"] == pytest.approx(7 / 9, abs=1e-15)
    assert table["mmlu"]["sample_count"] == {"acc,none": 9}
    assert (table["mmlu_stem"]["acc,none"], table["mmlu_stem"]["acc_stderr,none"]) == (1.0, 0.0)


def test_one_document_has_no_standard_error_and_neither_has_its_group(tmp_path: Path) -> None:
    asked = [
        request
        for request in requests(tmp_path)
        if request.id in {"mmlu_anatomy/0", "mmlu_econometrics/0", "mmlu_econometrics/1"}
    ]
    table = results(scores(score(asked, answers(asked, 0.5)), ["mmlu"]), asked)
    keys = ("mmlu_anatomy", "mmlu_stem", "mmlu")
    assert [table[name]["acc_stderr,none"] for name in keys] == ["N/A"] * 3
    assert isinstance(table["mmlu_social_sciences"]["acc_stderr,none"], float)


def test_a_request_file_tells_what_it_was_built_for_and_another_one_what_it_holds(
    tmp_path: Path,
) -> None:
    asked, file = requests(tmp_path / "data"), tmp_path / "requests.parquet"
    file.write_bytes(to_parquet(to_table(asked, ["mmlu_stem", "gsm8k_cot"])))
    assert asked_names(str(file), asked) == ("mmlu_stem", "gsm8k_cot")
    file.write_bytes(to_parquet(to_table(asked)))
    assert asked_names(str(file), asked) == ("mmlu", "gsm8k_cot", "humaneval")
