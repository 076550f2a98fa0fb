from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.demo.build import EVALUATION_ROWS, EVALUATION_SEED
from jobs.demo.questions import held_out, held_out_questions, multiple_choice, word_problem
from jobs.evaluation.config import BUNDLED_DATA
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from pipeline.evals.tasks.demo_forms import gsm8k_score, mmlu_prompts
from pipeline.evals.tasks.gsm8k import EXTRACTIONS


def bundled(task: str) -> list[EvalRequest]:
    return list(build_requests([task], DataFolder(str(BUNDLED_DATA)), PromptOptions()))


def test_mmlu_prompts_are_held_out_questions_of_the_demo() -> None:
    questions = held_out_questions(EVALUATION_SEED, EVALUATION_ROWS, (multiple_choice,))

    requests = bundled("demo_mmlu")

    assert all(map(held_out, questions))
    assert [request.prompt for request in requests] == [question.prompt for question in questions]
    assert [request.target for request in requests] == [question.answer for question in questions]
    assert requests[0].choices == (" A", " B", " C", " D")


def test_gsm8k_prompts_are_held_out_questions_of_the_demo() -> None:
    questions = held_out_questions(EVALUATION_SEED, EVALUATION_ROWS, (word_problem,))

    requests = bundled("demo_gsm8k")

    assert [request.prompt for request in requests] == [question.prompt for question in questions]
    for request, question in zip(requests, questions, strict=True):
        assert question.answer.endswith(f"The answer is {request.target}.")
        assert set(gsm8k_score(request, [Answer(text=question.answer)]).values.values()) == {1.0}
        assert set(gsm8k_score(request, [Answer(text=" 0.")]).values.values()) == {0.0}


def test_gsm8k_score_has_the_filters_of_gsm8k_cot() -> None:
    verdict = gsm8k_score(bundled("demo_gsm8k")[0], [Answer(error="engine_crash: x")])

    names = [f"exact_match,{extraction.name}" for extraction in EXTRACTIONS["gsm8k_cot"]]
    assert verdict.values == dict.fromkeys(names, 0.0)


def test_question_without_four_choices_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "demo" / "mmlu" / "test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 0}
    pq.write_table(pa.Table.from_pylist([row]), file)

    with pytest.raises(DatasetError, match="row 0: expected 4 choices and the index of one, got 2"):
        list(mmlu_prompts(DataFolder(str(tmp_path)), "demo_mmlu", PromptOptions()))
