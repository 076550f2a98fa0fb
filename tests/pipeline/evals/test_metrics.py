"""Scores of tasks and groups; test_goldens.py compares them with lm-evaluation-harness."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from pipeline.evals.metrics import mean_stderr, pooled_stderr, results, scores
from pipeline.evals.requests import requested_names, to_table
from pipeline.evals.scoring import Sample, score
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
def test_groups_and_headlines_follow_the_requested_names(
    asked: list[str], groups: list[str], headlines: list[str], tmp_path: Path
) -> None:
    all_requests = requests(tmp_path)
    found = scores(score(all_requests, answers(all_requests, 0.5)), asked)
    assert [each.name for each in found if each.is_group] == groups
    assert list(dict.fromkeys(each.name for each in found if each.headline)) == headlines


def test_group_weighs_every_document_equally(tmp_path: Path) -> None:
    asked = [request for request in requests(tmp_path) if request.task.startswith("mmlu")]
    given = answers(asked, 1.0)
    given |= answers([request for request in asked if request.task == "mmlu_econometrics"], 0.0)
    table = results(scores(score(asked, given), ["mmlu"]), asked)
    assert table["mmlu"]["acc,none"] == pytest.approx(7 / 9, abs=1e-15)
    assert table["mmlu"]["sample_count"] == {"acc,none": 9}
    assert (table["mmlu_stem"]["acc,none"], table["mmlu_stem"]["acc_stderr,none"]) == (1.0, 0.0)


def test_single_document_has_no_standard_error_nor_its_group(tmp_path: Path) -> None:
    asked = [
        request
        for request in requests(tmp_path)
        if request.id in {"mmlu_anatomy/0", "mmlu_econometrics/0", "mmlu_econometrics/1"}
    ]
    table = results(scores(score(asked, answers(asked, 0.5)), ["mmlu"]), asked)
    keys = ("mmlu_anatomy", "mmlu_stem", "mmlu")
    assert [table[name]["acc_stderr,none"] for name in keys] == ["N/A"] * 3
    assert isinstance(table["mmlu_social_sciences"]["acc_stderr,none"], float)


def test_request_file_stores_requested_names(
    tmp_path: Path,
) -> None:
    asked, file = requests(tmp_path / "data"), tmp_path / "requests.parquet"
    file.write_bytes(to_parquet(to_table(asked, ["mmlu_stem", "gsm8k_cot"])))
    assert requested_names(str(file), asked) == ("mmlu_stem", "gsm8k_cot")
    file.write_bytes(to_parquet(to_table(asked)))
    assert requested_names(str(file), asked) == ("mmlu", "gsm8k_cot", "humaneval")


# -- statistics against SciPy ----------------------------------------------------------------------

DOCUMENTS = st.lists(st.sampled_from((0.0, 0.25, 0.5, 1.0)), min_size=2, max_size=30)


@given(DOCUMENTS)
def test_mean_stderr_agrees_with_scipy(values: list[float]) -> None:
    assert mean_stderr(values) == pytest.approx(stats.sem(values, ddof=1), rel=1e-12, abs=1e-15)


@given(st.lists(DOCUMENTS, min_size=2, max_size=5))
def test_pooled_stderr_agrees_with_within_group_variance_of_anova(
    tasks: list[list[float]],
) -> None:
    """F of a one-way analysis of variance is the variance between groups over the pooled one."""
    documents = np.concatenate(tasks)
    between = sum(len(task) * (np.mean(task) - documents.mean()) ** 2 for task in tasks)
    between /= len(tasks) - 1
    assume(between > 1e-6 and any(len(set(task)) > 1 for task in tasks))
    pooled_variance = between / stats.f_oneway(*tasks).statistic

    stderr = pooled_stderr([mean_stderr(task) for task in tasks], [len(task) for task in tasks])
    assert stderr == pytest.approx(np.sqrt(pooled_variance / len(documents)), rel=1e-9)


def test_pooled_stderr_of_tasks_of_different_size_has_pinned_value() -> None:
    """Variances 1/3 of 4 documents and 1/6 of 6: (3 / 3 + 5 / 6) / 8 / 10."""
    small = [0.0, 0.0, 1.0, 1.0]
    large = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    stderr = pooled_stderr([mean_stderr(small), mean_stderr(large)], [4, 6])
    assert stderr == pytest.approx(((3 / 3 + 5 / 6) / 8 / 10) ** 0.5, rel=1e-12)
    assert pooled_stderr([None, 0.1], [1, 6]) is None


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.randoms())
def test_scores_of_a_group_are_mean_and_error_of_its_documents(
    tasks: list[list[float]], order: random.Random
) -> None:
    names = ("mmlu_anatomy", "mmlu_astronomy", "mmlu_econometrics", "mmlu_virology")
    samples = []
    for name, values in zip(names, tasks, strict=False):
        samples += [Sample("id", name, "acc,none", value, "", None) for value in values]
    order.shuffle(samples)
    (group,) = [score for score in scores(samples, ["mmlu"]) if score.name == "mmlu"]
    assert group.documents == len(samples)
    assert group.value == pytest.approx(np.mean([sample.value for sample in samples]))
