from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import triviaqa
from tests.pipeline.evals import own_data

FILE = "trivia_qa/rc.nocontext/validation-00000-of-00001.parquet"


def test_prompt_adds_a_question_mark_and_target_lists_the_names(data: DataFolder) -> None:
    [first, second] = build_requests(["triviaqa"], data, PromptOptions())
    assert first.prompt == "Question: Which river flows through Basel??\nAnswer:"
    assert first.target == '["Rhine", "The Rhine", "Rhein (river)"]'
    assert second.prompt == "Question: How many legs has a spider?\nAnswer:"
    assert (second.stop, second.max_tokens) == (("\n", ".", ","), 256)


@pytest.mark.parametrize(
    ("text", "value"),
    [(" the RHINE!", 1.0), (" Rhein river", 1.0), (" the  rhine", 0.0), ("", 0.0)],
)
def test_any_name_is_right_without_case_and_punctuation(
    text: str, value: float, data: DataFolder
) -> None:
    [request, _] = build_requests(["triviaqa"], data, PromptOptions())
    verdict = triviaqa.score(request, (Answer(text=text),))
    assert verdict.values == {"exact_match,remove_whitespace": value}


def test_failed_row_is_wrong(data: DataFolder) -> None:
    [request, _] = build_requests(["triviaqa"], data, PromptOptions())
    verdict = triviaqa.score(request, (Answer(error="x: y"),))
    assert verdict.values == {"exact_match,remove_whitespace": 0.0}


def test_question_without_answer_is_refused(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    row: dict[str, object] = {"question": "Why", "answer": {"value": "", "aliases": [""][:0]}}
    other: dict[str, object] = {"question": "Who", "answer": {"value": "I", "aliases": ["I"]}}
    own_data.rewrite(folder / FILE, [other, row])
    with pytest.raises(DatasetError, match=r"validation, row 1: answer\.aliases is empty"):
        build_requests(["triviaqa"], DataFolder(str(folder)), PromptOptions())
