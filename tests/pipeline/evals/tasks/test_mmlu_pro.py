from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import mmlu_pro
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_data import reasoned_row

FOLDER = "MMLU-Pro/data"
FILE = "00000-of-00001.parquet"


def test_prompt_has_instruction_five_shots_and_question(data: DataFolder) -> None:
    [request, _] = build_requests(["mmlu_pro_computer_science"], data, PromptOptions())
    prompt = (
        "The following are multiple choice questions (with answers) about computer science. Think "
        'step by step and then finish your answer with "the answer is (X)" where X is the correct '
        "letter choice.\n"
    )
    for number in range(1, 6):
        question = mmlu_pro.question(reasoned_row("computer science", number))
        prompt += f"{question} We multiply. The answer is ({'ABCDEF'[number]}).\n\n"
    assert request.prompt == (
        f"{prompt}Question:\nHow many apples are 7 times 7 apples?\nOptions:\nA. 0 apples\n"
        "B. 7 apples\nC. 14 apples\nD. 21 apples\nE. 28 apples\nF. 35 apples\nG. 42 apples\n"
        "H. 49 apples\nI. 56 apples\nJ. 63 apples\nAnswer: Let's think step by step."
    )
    assert (request.target, request.stop, request.max_tokens) == ("H", ("Question:",), 2048)


def test_group_has_the_categories_that_the_data_holds(data: DataFolder) -> None:
    requests = build_requests(["mmlu_pro"], data, PromptOptions(limit=1))
    assert [request.id for request in requests] == [
        "mmlu_pro_computer_science/0",
        "mmlu_pro_math/0",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [(" So the answer is (H).", 1.0), (" the answer is (A). The answer is H", 0.0), ("", 0.0)],
)
def test_first_named_letter_is_the_answer(text: str, value: float, data: DataFolder) -> None:
    [request, _] = build_requests(["mmlu_pro_math"], data, PromptOptions())
    verdict = mmlu_pro.score(request, (Answer(text=text),))
    assert verdict.values == {"exact_match,custom-extract": value}


def test_too_few_shots_are_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    rows = [reasoned_row("math", number) for number in range(4)]
    own_data.rewrite(folder / FOLDER / f"validation-{FILE}", rows)
    with pytest.raises(DatasetError, match="at least 5 rows of category 'math', found 4"):
        build_requests(["mmlu_pro_math"], DataFolder(str(folder)), PromptOptions())


def test_answer_that_is_no_option_is_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    row = reasoned_row("math", 3) | {"answer": "J", "options": ["1", "2"]}
    own_data.rewrite(folder / FOLDER / f"test-{FILE}", [row])
    with pytest.raises(DatasetError, match="expected the letter of one of 2 options, got 'J'"):
        build_requests(["mmlu_pro_math"], DataFolder(str(folder)), PromptOptions())
