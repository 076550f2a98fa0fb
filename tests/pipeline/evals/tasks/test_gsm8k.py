import random
from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, PromptOptions
from pipeline.evals.tasks import gsm8k
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_data import problem


def test_gsm8k_draws_new_shots_for_each_document(data: DataFolder) -> None:
    requests = build_requests(["gsm8k"], data, PromptOptions())
    generator = random.Random(1234)
    for number, request in enumerate(requests):
        shots = ""
        for shot in map(problem, generator.sample(range(100, 109), 5)):
            shots += f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n"
        assert request.prompt == f"{shots}Question: {problem(number)['question']}\nAnswer:"
        assert request.target == problem(number)["answer"]
        assert request.stop == ("Question:", "</s>", "<|im_end|>")
    assert len({request.prompt.split("Question:")[1] for request in requests}) > 1


def test_gsm8k_shots_do_not_depend_on_the_limit(data: DataFolder) -> None:
    requests = build_requests(["gsm8k"], data, PromptOptions())
    assert build_requests(["gsm8k"], data, PromptOptions(limit=2)) == requests[:2]


def test_gsm8k_cot_reads_its_worked_examples_from_the_data_folder(data: DataFolder) -> None:
    [request, *_] = build_requests(["gsm8k_cot"], data, PromptOptions())
    shots = ""
    for number in range(8):
        total = number + 1
        shots += f"Q: What is {number} and 1?\nA: It is {total}. The answer is {total}.\n\n"
    assert request.prompt == f"{shots}Q: {problem(0)['question']}\nA:"
    assert request.target == "1,002"
    assert request.stop == ("Q:", "</s>", "<|im_end|>")
    assert request.max_tokens == 256


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Sure. The answer is 1002.", {"strict-match": 1.0, "flexible-extract": 1.0}),
        (" The answer is $1,002.00.", {"strict-match": 0.0, "flexible-extract": 0.0}),
        # strict finds 100: its last . is any character
        (" The answer is 1002", {"strict-match": 0.0, "flexible-extract": 1.0}),
        (" I think 7, no, 1002", {"strict-match": 0.0, "flexible-extract": 1.0}),
        ("", {"strict-match": 0.0, "flexible-extract": 0.0}),
    ],
)
def test_gsm8k_cot_scores_both_filters(
    text: str, expected: dict[str, float], data: DataFolder
) -> None:
    [request, *_] = build_requests(["gsm8k_cot"], data, PromptOptions())
    verdict = gsm8k.score(request, (Answer(text=text),))
    assert verdict.values == {f"exact_match,{name}": value for name, value in expected.items()}


def test_gsm8k_refuses_too_few_training_rows(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    own_data.rewrite(folder / "gsm8k/main/train-00000-of-00001.parquet", [problem(1)])
    with pytest.raises(DatasetError, match="at least 5 rows to draw shots from, found 1"):
        build_requests(["gsm8k"], DataFolder(str(folder)), PromptOptions())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "x"}', r"line 1 of .*cot_shots.jsonl"),
        ('{"question": "x", "answer": "y"}', "expected 8 worked examples, found 1"),
    ],
)
def test_gsm8k_cot_refuses_damaged_worked_examples(line: str, message: str, tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    (folder / "gsm8k/cot_shots.jsonl").write_text(f"{line}\n")
    with pytest.raises(DatasetError, match=message):
        build_requests(["gsm8k_cot"], DataFolder(str(folder)), PromptOptions())
