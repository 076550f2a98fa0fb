from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import PromptOptions
from pipeline.evals.tasks import mmlu, suite_of
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_data import choice_row

DEV = "mmlu/all/dev-00000-of-00001.parquet"


def test_groups_have_the_sizes_of_the_harness() -> None:
    sizes = {group.name: len(group.tasks) for group in suite_of("mmlu").groups}
    assert sizes == {
        "mmlu_stem": 19,
        "mmlu_other": 13,
        "mmlu_social_sciences": 12,
        "mmlu_humanities": 13,
        "mmlu": 57,
    }


def test_prompt_has_description_five_shots_and_question(data: DataFolder) -> None:
    [first, *others] = build_requests(["mmlu_anatomy"], data, PromptOptions())
    question = (
        "In anatomy, which count is number {}?\n"
        "A. {} steps \nB. {} steps \nC. {} steps \nD. {} steps \nAnswer:"
    )
    prompt = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    for number in range(100, 105):  # the first five of seven
        choices = range(number, number + 4)
        prompt += f"{question.format(number, *choices)} {'ABCD'[number % 4]}\n\n"
    assert first.prompt == prompt + question.format(0, 0, 1, 2, 3)
    assert (first.id, first.doc_id) == ("mmlu_anatomy/0", 0)
    assert (first.choices, first.target) == ((" A", " B", " C", " D"), " A")
    assert [request.target for request in others] == [" B", " C"]
    assert (first.stop, first.max_tokens) == (None, None)


def test_requests_of_a_group_are_sorted_by_subject(data: DataFolder) -> None:
    requests = build_requests(["mmlu"], data, PromptOptions())
    expected = []
    for task, subject in mmlu.SUBJECTS.items():
        expected += [task] * own_data.TEST_ROWS.get(subject, 0)
    assert [request.task for request in requests] == expected


def test_limit_applies_to_each_subject(data: DataFolder) -> None:
    limited = build_requests(["mmlu", "mmlu_stem"], data, PromptOptions(limit=2))
    assert [request.id for request in limited] == [
        f"mmlu_{subject}/{row}" for subject in own_data.SUBJECTS for row in (0, 1)
    ]


def test_too_few_shots_are_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    own_data.rewrite(folder / DEV, [choice_row("anatomy", number) for number in range(4)])
    with pytest.raises(DatasetError, match="at least 5 rows of subject 'anatomy', found 4"):
        build_requests(["mmlu_anatomy"], DataFolder(str(folder)), PromptOptions())


def test_row_without_four_choices_is_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    row = choice_row("anatomy", 1) | {"choices": ["only", "three", "choices"]}
    own_data.rewrite(folder / DEV, [row] * 5)
    with pytest.raises(DatasetError, match=r"subject 'anatomy', row 0: expected 4 choices"):
        build_requests(["mmlu_anatomy"], DataFolder(str(folder)), PromptOptions())
