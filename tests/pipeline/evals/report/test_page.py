"""The evaluation's page as a browser would parse it.

Tests/end_to_end/test_evaluate_in_browser.py looks at it in one.
"""

from dataclasses import replace
from pathlib import Path

from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.history import History
from pipeline.evals.report.page import render
from pipeline.evals.suite import Answer
from tests.pipeline.evals.own_runs import ASKED, BEGAN, answers, night, requests
from tests.pipeline.report.test_run_report import HOSTILE, Page

WHERE = {"Output": "runs/nightly"}
PLOTS = {"differences", "trend", "subjects", "calibration", "prompt-lengths", "completion-lengths"}


def page(evaluation: Evaluation) -> Page:
    return Page(render(evaluation, Rules(), WHERE))


def plots(seen: Page) -> set[str]:
    return {
        str(attributes["aria-labelledby"]).removesuffix("-title")
        for tag, attributes in seen.elements
        if tag == "svg"
    }


def test_a_regression_is_told_with_what_changed(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, asked, 1.0, history)
    seen = page(night(1, asked, 0.0, history, aside=HOSTILE))
    assert plots(seen) == PLOTS
    assert "mmlu: acc lost 100.00 points against the last and best run, night 0" in seen.text
    assert "Evaluation regression" in seen.text
    assert "mmlu: 3 of its 57 tasks" in seen.text
    assert "9 worse" in seen.text
    assert "mmlu_anatomy/0" in seen.text
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in seen.elements}
    assert len(seen.values("id")) == len(set(seen.values("id")))


def test_a_first_run_has_nothing_to_compare_with(tmp_path: Path) -> None:
    seen = page(night(0, requests(tmp_path / "data"), 0.5, History(None)))
    assert plots(seen) == PLOTS - {"differences"}
    assert "nothing to compare with" in seen.text
    assert "No earlier run in the history asked the same documents." in seen.text


def test_a_certain_loss_within_the_margin_is_pointed_out(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, asked, 1.0, history)
    given, info = answers(asked, 0.0), RunInfo("run1", BEGAN.replace(day=9), "")
    seen = page(evaluate(asked, ASKED, given, info, History.load(history.url), Rules(margin=1.0)))
    assert "Evaluation no regression" in seen.text
    assert (
        "mmlu: acc lost 100.00 points against the last and best run, night 0: more than chance "
        "explains, but" in seen.text
    )


def test_an_equal_run_says_so(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, asked, 0.5, history)
    seen = page(night(1, asked, 0.5, history))
    assert "Evaluation no regression" in seen.text
    assert seen.text.count("Every document has the same value.") == 4


def test_texts_of_models_data_and_users_do_nothing(tmp_path: Path) -> None:
    asked, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    hostile = [
        replace(
            each,
            prompt=each.prompt + HOSTILE,
            target=each.target + (HOSTILE if not each.choices else ""),
        )
        for each in asked
    ]
    for number, skill in enumerate((1.0, 0.0)):
        earlier = History.load(history.url)
        info = RunInfo(
            f"run{number}", BEGAN.replace(day=1 + number), HOSTILE, HOSTILE, HOSTILE, HOSTILE
        )
        found = evaluate(hostile, ASKED, answers(hostile, skill, HOSTILE), info, earlier, Rules())
        history.add(found.entries, found.samples)
    seen = Page(render(found, Rules(), {"Output": HOSTILE}))
    assert not {"script", "img"} & {tag for tag, _ in seen.elements}
    assert not {
        name for _, attributes in seen.elements for name in attributes if name.startswith("on")
    }
    assert "alert(1)" in seen.text


def test_failures_long_completions_and_programs_that_were_not_run_are_pointed_out(
    tmp_path: Path,
) -> None:
    asked = requests(tmp_path / "data")
    given = answers(asked, 1.0)
    given["mmlu_anatomy/0"] = (Answer(error="prompt_too_long: m"),)
    for name, found in given.items():
        if name.startswith("gsm8k"):
            given[name] = (replace(found[0], finish_reason="length"),)
        if name.startswith("humaneval"):
            given[name] = (replace(found[0], passed=None),)
    evaluation = evaluate(asked, ASKED, given, RunInfo("r", BEGAN, ""), History(None), Rules())
    seen = page(evaluation)
    assert "1 of 17 rows failed; their documents count as wrong." in seen.text
    assert "gsm8k_cot: 100\u00a0% of the completions ended at max_tokens" in seen.text
    assert "humaneval: no metric. Its programs were not executed" in seen.text
    results = evaluation.metrics()["results"]
    assert isinstance(results, dict)
    assert results["humaneval"] == {"alias": "humaneval", "sample_len": 3}
    assert results["mmlu_anatomy"]["acc,none"] == 2 / 3


def test_a_run_without_any_value_is_still_a_page(tmp_path: Path) -> None:
    asked = [each for each in requests(tmp_path / "data") if each.task == "humaneval"]
    given = {each.id: (Answer(text="x"),) for each in asked}
    seen = page(evaluate(asked, ASKED, given, RunInfo("r", BEGAN, ""), History(None), Rules()))
    assert plots(seen) == set()
    assert "not executed" in seen.text
