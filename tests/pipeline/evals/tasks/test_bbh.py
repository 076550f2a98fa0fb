from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import bbh, suite_of
from tests.pipeline.evals import own_data


def test_group_has_the_size_of_the_harness() -> None:
    [group] = suite_of("bbh_cot_fewshot").groups
    assert len(group.tasks) == 27


def test_prompt_has_description_three_shots_and_question(data: DataFolder) -> None:
    [first, *_] = build_requests(["bbh_cot_fewshot_navigate"], data, PromptOptions())
    prompt = "Solve navigate.\n\n"
    for number in range(3):
        prompt += (
            f"Q: Example {number}?\nA: Let's think step by step.\n"
            f"We count. So the answer is {number}.\n\n"
        )
    assert first.prompt == f"{prompt}Q: Question 1?\nA: Let's think step by step.\n"
    assert (first.target, first.stop) == ("navigate 1", ("</s>", "Q", "\n\n"))
    assert first.max_tokens == 1024


def test_group_has_the_tasks_that_the_data_holds(data: DataFolder) -> None:
    requests = build_requests(["bbh_cot_fewshot"], data, PromptOptions(limit=1))
    assert [request.id for request in requests] == [
        "bbh_cot_fewshot_navigate/0",
        "bbh_cot_fewshot_word_sorting/0",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" So the answer is navigate 1.", 1.0),
        (" So the answer is navigate 1", 0.0),  # the pattern drops the last character
        (" The Answer is navigate 1.", 0.0),
        ("", 0.0),
    ],
)
def test_answer_is_compared_to_the_letter(text: str, value: float, data: DataFolder) -> None:
    [request, *_] = build_requests(["bbh_cot_fewshot_navigate"], data, PromptOptions())
    verdict = bbh.score(request, (Answer(text=text),))
    assert verdict.values == {"exact_match,get-answer": value}


def test_missing_worked_examples_are_named(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    shots = folder / "bbh" / "cot_shots.jsonl"
    shots.write_text(shots.read_text().replace('"navigate"', '"other"'))
    with pytest.raises(DatasetError, match="expected 3 worked examples of task 'navigate', found"):
        build_requests(["bbh_cot_fewshot_navigate"], DataFolder(str(folder)), PromptOptions())
