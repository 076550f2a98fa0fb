"""The registry of suites in pipeline/evals/tasks/__init__.py."""

import pytest

from pipeline.errors import ConfigError
from pipeline.evals.tasks import leaf_tasks, suite_of, suites


def test_suites_are_found_and_their_names_are_unique() -> None:
    suite_names = [suite.name for suite in suites()]
    assert suite_names == [
        "demo",
        "demo_gsm8k",
        "demo_mmlu",
        "gsm8k",
        "gsm8k_cot",
        "humaneval",
        "mmlu",
    ]
    names = [name for suite in suites() for name in suite.names]
    assert len(names) == len(set(names))


def test_leaf_tasks_of_group_contain_its_tasks() -> None:
    assert "mmlu_anatomy" in leaf_tasks(["mmlu_stem", "gsm8k", "mmlu_anatomy"])


def test_leaf_tasks_are_unique_and_in_order_of_names() -> None:
    assert leaf_tasks(["humaneval", "gsm8k", "humaneval"]) == ("humaneval", "gsm8k")


def test_suite_of_unknown_name_lists_expected_names() -> None:
    with pytest.raises(ConfigError, match=r"humaneval, mmlu .*got 'mmmlu'"):
        suite_of("mmmlu")
