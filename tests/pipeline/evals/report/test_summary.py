"""Markdown and JUnit XML of an evaluation."""

from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.history import History
from pipeline.evals.report.summary import junit, markdown
from pipeline.evals.suite import Answer, EvalRequest
from tests.pipeline.evals.own_runs import BEGAN

HOSTILE = "a|b\n<c>\x1b[2J"
REQUESTS = [EvalRequest(f"demo_answer/{n}", "demo_answer", n, "q", "yes") for n in range(40)]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Evaluation]:
    """Two nights, of which the second lost 30 of 40 documents."""
    history = str(tmp_path_factory.mktemp("history"))
    evaluations = []
    for number, right in enumerate((40, 10)):
        answers = {}
        for request in REQUESTS:
            text = "yes" if request.doc_id < right else "no"
            answers[request.id] = (Answer(text=text),)
        info = RunInfo(f"run{number}", BEGAN + timedelta(days=number), f"{HOSTILE}{number}")
        earlier = History.load(history)
        evaluation = evaluate(REQUESTS, ["demo_answer"], answers, info, earlier, Rules())
        earlier.add(evaluation.entries, evaluation.samples)
        evaluations.append(evaluation)
    return evaluations


def test_markdown_is_a_verdict_and_a_row_per_comparison(nights: list[Evaluation]) -> None:
    first, second = (markdown(night, "s3://b/report.html") for night in nights)
    assert ": nothing to compare with" in first
    assert "100.00 % ± 0.00 | | | | | |" in first
    assert "**regression** in 1 of 1 comparisons" in second
    [row] = [line for line in second.splitlines() if line.endswith("| **regression** |")]
    assert "| -75.00 |" in row


def test_markdown_escapes_names(nights: list[Evaluation]) -> None:
    text = markdown(nights[1], "report.html")
    assert "a\\|b \\<c\\> \\[2J1" in text
    assert "\x1b" not in text


def test_junit_fails_a_regression_and_nothing_else(nights: list[Evaluation]) -> None:
    [suite] = ET.fromstring(junit(nights[0]))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    [suite] = ET.fromstring(junit(nights[1]))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert "-75.00 points" in str(failure.get("message"))
    values = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert values["documents"] == "40"
    assert values["value"] == "0.25"
