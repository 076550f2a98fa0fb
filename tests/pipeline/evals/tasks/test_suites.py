"""The registry of suites in pipeline/evals/tasks/__init__.py."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import leaf_tasks, suite_of, suites

# Answers to requests of own_data.py, with the values that lm-evaluation-harness 0.4.13 computes for
# them (ConfigurableTask.process_results after apply_filters, task files of the harness).
HARNESS_VERDICTS = Path("tests/data/evaluation/harness_verdicts.jsonl")
HARNESS_TASKS = (
    "arc_easy",
    "arc_challenge",
    "hellaswag",
    "winogrande",
    "triviaqa",
    "mmlu_pro",
    "bbh_cot_fewshot",
)


def test_suites_are_found_and_their_names_are_unique() -> None:
    suite_names = [suite.name for suite in suites()]
    assert suite_names == [
        "arc_challenge",
        "arc_easy",
        "bbh",
        "demo",
        "demo_gsm8k",
        "demo_mmlu",
        "gsm8k",
        "gsm8k_cot",
        "hellaswag",
        "humaneval",
        "mmlu",
        "mmlu_pro",
        "triviaqa",
        "winogrande",
    ]
    names = [name for suite in suites() for name in suite.names]
    assert len(names) == len(set(names))


def test_leaf_tasks_of_group_contain_its_tasks() -> None:
    assert "mmlu_anatomy" in leaf_tasks(["mmlu_stem", "gsm8k", "mmlu_anatomy"])


def test_leaf_tasks_are_unique_and_in_order_of_names() -> None:
    assert leaf_tasks(["humaneval", "gsm8k", "humaneval"]) == ("humaneval", "gsm8k")


def test_suite_of_unknown_name_lists_expected_names() -> None:
    with pytest.raises(ConfigError, match=r"humaneval, mmlu,.*got 'mmmlu'"):
        suite_of("mmmlu")


def test_verdicts_equal_those_of_the_harness(data: DataFolder) -> None:
    requests = {}
    for request in build_requests(HARNESS_TASKS, data, PromptOptions()):
        requests[request.id] = request

    tasks_with_right_answers = set()
    for line in HARNESS_VERDICTS.read_text().splitlines():
        row = json.loads(line)
        request = requests[row["id"]]
        answer = Answer(text=row["text"] or "", loglikelihoods=tuple(row["loglikelihoods"] or ()))
        verdict = suite_of(request.task).score(request, (answer,))
        assert verdict.values == row["values"], row
        if 1.0 in row["values"].values():
            tasks_with_right_answers.add(suite_of(request.task).name)
    assert len(tasks_with_right_answers) == len(HARNESS_TASKS)
