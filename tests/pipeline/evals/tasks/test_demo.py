from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from pipeline.evals.tasks import demo

ROWS = [
    {"prompt": "1 + 1 =", "choices": [" 1", " 2"], "answer": " 2"},
    {"prompt": "2 + 2 =", "choices": [" 4", " 5", " 6"], "answer": " 4"},
]


def data_of(folder: Path, rows: list[dict[str, object]]) -> DataFolder:
    file = folder / "demo" / "questions" / "test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return DataFolder(str(folder))


@pytest.fixture
def requests(tmp_path: Path) -> dict[str, EvalRequest]:
    built = build_requests(["demo"], data_of(tmp_path, ROWS), PromptOptions())
    return {request.id: request for request in built}


def test_each_question_is_scored_and_completed(requests: dict[str, EvalRequest]) -> None:
    assert list(requests) == ["demo_choice/0", "demo_choice/1", "demo_answer/0", "demo_answer/1"]
    choice = requests["demo_choice/1"]
    assert (choice.choices, choice.target, choice.max_tokens) == ((" 4", " 5", " 6"), " 4", None)
    answer = requests["demo_answer/1"]
    assert (answer.choices, answer.target, answer.stop) == (None, " 4", ("\n",))
    assert (answer.max_tokens, answer.temperature, answer.n) == (24, 0.0, 1)


def test_likeliest_choice_and_exact_completion_count(requests: dict[str, EvalRequest]) -> None:
    choice = requests["demo_choice/0"]
    assert demo.score(choice, [Answer(loglikelihoods=(-2.0, -1.0))]).values == {"acc,none": 1.0}
    assert demo.score(choice, [Answer(loglikelihoods=(-1.0, -2.0))]).values == {"acc,none": 0.0}

    answer = requests["demo_answer/0"]
    texts = {" 2": 1.0, "2 ": 1.0, " 22": 0.0, "": 0.0}
    for text, value in texts.items():
        assert demo.score(answer, [Answer(text=text)]).values == {"exact_match,none": value}
    failed = Answer(error="engine_crash: x")
    assert demo.score(answer, [failed]).values == {"exact_match,none": 0.0}
    assert demo.score(choice, [failed]).values == {"acc,none": 0.0}


def test_answer_that_is_no_choice_is_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": "1 + 1 =", "choices": [" 1"], "answer": " 2"}]
    with pytest.raises(DatasetError, match="row 0: expected an answer among the choices, got ' 2'"):
        build_requests(["demo_choice"], data_of(tmp_path, rows), PromptOptions())
