"""Prompts and verdicts of each suite, on data sets of our own.

Tests/pipeline/evals/test_goldens.py has the real ones.
"""

import random
from math import comb
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import accuracy, confidence
from pipeline.evals.requests import build_requests
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions
from pipeline.evals.tasks import gsm8k, humaneval, leaf_tasks, mmlu, suite_of, suites
from tests.pipeline.evals import own_data
from tests.pipeline.evals.own_data import choice_row, problem


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(str(own_data.write(tmp_path_factory.mktemp("data"))))


def build(data: DataFolder, *names: str, **options: float) -> list[EvalRequest]:
    return build_requests(names, data, PromptOptions(**options))  # type: ignore[arg-type]


def test_the_suites_are_found_and_their_tasks_have_one_name_each() -> None:
    assert [suite.name for suite in suites()] == ["gsm8k", "gsm8k_cot", "humaneval", "mmlu"]
    names = [name for suite in suites() for name in suite.names]
    assert len(names) == len(set(names))
    sizes = {group.name: len(group.tasks) for group in suite_of("mmlu").groups}
    assert sizes == {
        "mmlu_stem": 19,
        "mmlu_other": 13,
        "mmlu_social_sciences": 12,
        "mmlu_humanities": 13,
        "mmlu": 57,
    }
    assert "mmlu_anatomy" in leaf_tasks(["mmlu_stem", "gsm8k", "mmlu_anatomy"])
    with pytest.raises(ConfigError, match=r"humaneval, mmlu .*got 'mmmlu'"):
        suite_of("mmmlu")


def test_an_mmlu_prompt_to_the_letter(data: DataFolder) -> None:
    [first, *rest] = build(data, "mmlu_anatomy")
    asked = "In anatomy, which count is number {}?\nA. {} steps \nB. {} steps \nC. {} steps \nD. {} steps \nAnswer:"
    numbers = range(100, 105)  # the first five of seven
    shots = [asked.format(n, n, n + 1, n + 2, n + 3) + f" {'ABCD'[n % 4]}\n\n" for n in numbers]
    description = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    assert first.prompt == description + "".join(shots) + asked.format(0, 0, 1, 2, 3)
    assert (first.id, first.doc_id, first.choices, first.target) == (
        "mmlu_anatomy/0",
        0,
        (" A", " B", " C", " D"),
        " A",
    )
    assert [each.target for each in rest] == [" B", " C"]
    assert (first.stop, first.max_tokens) == (None, None)


def test_subjects_of_a_group_come_one_after_the_other_whatever_the_order_of_the_rows(
    data: DataFolder,
) -> None:
    requests = build(data, "mmlu")
    assert [each.task for each in requests] == [
        task
        for task in mmlu.SUBJECTS
        for _ in range(own_data.TEST_ROWS.get(task.removeprefix("mmlu_"), 0))
    ]
    limited = build(data, "mmlu", "mmlu_stem", limit=2)
    assert [each.id for each in limited] == [
        f"mmlu_{subject}/{row}" for subject in own_data.SUBJECTS for row in (0, 1)
    ]


def test_gsm8k_shots_are_drawn_anew_for_each_document_and_do_not_depend_on_the_limit(
    data: DataFolder,
) -> None:
    requests = build(data, "gsm8k")
    draw = random.Random(1234)
    for number, request in enumerate(requests):
        shots = "".join(
            f"Question: {problem(n)['question']}\nAnswer: {problem(n)['answer']}\n\n"
            for n in draw.sample(range(100, 109), 5)
        )
        assert request.prompt == f"{shots}Question: {problem(number)['question']}\nAnswer:"
        assert request.target == problem(number)["answer"]
        assert request.stop == ("Question:", "</s>", "<|im_end|>")
    assert build(data, "gsm8k", limit=2) == requests[:2]
    assert len({request.prompt.split("Question:")[1] for request in requests}) > 1


def test_gsm8k_cot_reads_its_worked_examples_from_the_data_folder(data: DataFolder) -> None:
    [request, *_] = build(data, "gsm8k_cot")
    shots = "".join(
        f"Q: What is {n} and 1?\nA: It is {n + 1}. The answer is {n + 1}.\n\n" for n in range(8)
    )
    assert request.prompt == f"{shots}Q: {problem(0)['question']}\nA:"
    assert (request.target, request.stop, request.max_tokens) == (
        "1,002",
        ("Q:", "</s>", "<|im_end|>"),
        256,
    )


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
def test_both_filters_of_gsm8k_cot(text: str, expected: dict[str, float], data: DataFolder) -> None:
    [request, *_] = build(data, "gsm8k_cot")
    verdict = gsm8k.score(request, (Answer(text=text),))
    assert verdict.values == {f"exact_match,{name}": value for name, value in expected.items()}


def test_humaneval_programs_and_samples(data: DataFolder) -> None:
    [request, *_] = build(data, "humaneval", samples=10, sample_temperature=0.8)
    assert (request.n, request.temperature, request.max_tokens) == (10, 0.8, 1024)
    assert humaneval.program(request, "    return a + b") == (
        "def add(a, b):\n    '''Sum.'''\n    return a + b\n"
        "def check(candidate):\n    assert candidate(2, 3) == 5\n\ncheck(add)"
    )  # fmt: skip
    samples = [Answer(passed=number < 3) for number in range(10)]
    verdict = humaneval.score(request, samples)
    assert verdict.values == {"pass@1,create_test": pytest.approx(0.3), "pass@10,create_test": 1.0}
    assert humaneval.score(request, [Answer()]).values == {}
    failed = humaneval.score(request, [Answer(error="prompt_too_long: x")])
    assert failed.values == {"pass@1,create_test": 0.0, "pass@10,create_test": 0.0}


@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_success(n: int, drawn: st.DataObject) -> None:
    passed, k = drawn.draw(st.integers(0, n)), drawn.draw(st.integers(1, n))
    assert humaneval.pass_at_k(n, passed, k) == pytest.approx(
        1 - comb(n - passed, k) / comb(n, k), abs=1e-12
    )


REQUEST = EvalRequest("t/0", "t", 0, "?", " B", choices=(" A", " B", " C"))


def test_the_first_of_equally_likely_choices_is_chosen() -> None:
    tied = accuracy(REQUEST, (Answer(loglikelihoods=(-2.0, -1.0, -1.0)),))
    assert (tied.values, tied.answer) == ({"acc,none": 1.0}, " B")
    assert accuracy(REQUEST, (Answer(loglikelihoods=(-1.0, -1.0, -2.0)),)).values == {
        "acc,none": 0.0
    }
    assert accuracy(REQUEST, (Answer(error="x: y"),)).values == {"acc,none": 0.0}
    assert confidence(Answer(loglikelihoods=(0.0, 0.0, -1000.0))) == pytest.approx(0.5)
    assert confidence(Answer(text="x")) is None


def test_what_does_not_fit_a_multiple_choice_request_is_named() -> None:
    with pytest.raises(DatasetError, match=r"t/0: expected 3 log-likelihoods.*got 1"):
        accuracy(REQUEST, (Answer(loglikelihoods=(-1.0,)),))
    with pytest.raises(DatasetError, match="target ' Z' is none"):
        accuracy(
            EvalRequest("t/0", "t", 0, "?", " Z", choices=(" A",)),
            (Answer(loglikelihoods=(-1.0,)),),
        )


def rewrite(path: Path, rows: list[dict[str, object]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_damaged_data_sets_are_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = own_data.write(tmp_path)
    dev, train = (
        folder / "mmlu/all/dev-00000-of-00001.parquet",
        folder / "gsm8k/main/train-00000-of-00001.parquet",
    )
    rewrite(dev, [choice_row("anatomy", number) for number in range(4)])
    rewrite(train, [problem(1)])
    (folder / "gsm8k/cot_shots.jsonl").write_text('{"question": "x"}\n')
    rewrite(
        folder / "humaneval/openai_humaneval/test-00000-of-00001.parquet",
        [{"prompt": "p", "test": None}],
    )
    for name, message in {
        "mmlu_anatomy": "at least 5 rows of subject 'anatomy', found 4",
        "mmlu_virology": "holds no row of mmlu_virology",
        "gsm8k": "at least 5 rows to draw shots from, found 1",
        "gsm8k_cot": "line 1 of .*cot_shots.jsonl",
        "humaneval": "no column .*entry_point",
    }.items():
        with pytest.raises(DatasetError, match=message):
            build(DataFolder(str(folder)), name)
    (folder / "gsm8k/cot_shots.jsonl").write_text('{"question": "x", "answer": "y"}\n')
    with pytest.raises(DatasetError, match="expected 8 worked examples, found 1"):
        build(DataFolder(str(folder)), "gsm8k_cot")
    bad = choice_row("anatomy", 1) | {"choices": ["only", "three", "choices"]}
    rewrite(dev, [bad] * 5)
    with pytest.raises(DatasetError, match=r"subject 'anatomy', row 0: expected 4 choices"):
        build(DataFolder(str(folder)), "mmlu_anatomy")
    with pytest.raises(
        DatasetError, match=r"no .*/nowhere/gsm8k/main/test-\*.parquet; --data must hold"
    ):
        build(DataFolder(str(tmp_path / "nowhere")), "gsm8k")
    with pytest.raises(ConfigError, match="at least one task"):
        build(DataFolder(str(folder)))
