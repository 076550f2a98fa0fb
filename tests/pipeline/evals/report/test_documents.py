"""Documents on the page: which examples are taken, and what of a prompt is shown."""

from pathlib import Path

import pytest

from pipeline.evals.history import History
from pipeline.evals.report.documents import (
    MAX_EXAMPLES,
    PROMPT_END_CHARS,
    examples_of,
    prompt_end,
)
from tests.pipeline.evals.own_runs import night, requests


def test_examples_are_right_and_wrong_documents_of_the_metric(tmp_path: Path) -> None:
    evaluation = night(0, requests(tmp_path / "data"), 0.5, History(None))
    entry = next(entry for entry in evaluation.headlines if entry.task == "mmlu")
    examples = examples_of(evaluation, entry, "mmlu: acc")
    values = {sample.id: sample.value for sample in evaluation.samples if sample.confidence}
    right = sum(value == 1 for value in values.values())
    assert examples.summary == f"mmlu: acc: {right} right, {len(values) - right} wrong"
    assert len(examples.right) == min(right, MAX_EXAMPLES)
    assert {values[example.id] for example in examples.right} == {1.0}
    assert {values[example.id] for example in examples.wrong} == {0.0}
    probabilities = [example.probability or 0.0 for example in examples.wrong]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(example.target and example.answer for example in examples.wrong)


QUESTION = "Q: how many pens has Mira now?\nA:"


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("short", "short"),
        (QUESTION, QUESTION),
        (f"Q: an example\nA: 3\n\n{QUESTION}", f"…{QUESTION}"),
        ("a\n\nb\n\nc", "a\n\nb\n\nc"),
        ("x" * 900, f"…{'x' * PROMPT_END_CHARS}"),
    ],
)
def test_prompt_end_is_the_question_after_examples(prompt: str, end: str) -> None:
    assert prompt_end(prompt) == end
