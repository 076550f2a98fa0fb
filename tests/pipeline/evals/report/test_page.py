"""The page of an evaluation, parsed; test_evaluate_in_browser.py opens it in a browser."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pipeline.evals import report
from pipeline.evals.answers import Answers
from pipeline.evals.comparison import Rules
from pipeline.evals.evaluation import Evaluation, RunInfo, evaluate
from pipeline.evals.history import History
from pipeline.evals.report.page import render
from pipeline.evals.suite import Answer
from tests.pipeline.evals.own_runs import BEGAN, TASKS, answers, night, requests
from tests.pipeline.report.test_run_report import HOSTILE, Page

LOCATIONS = {"Output": "runs/nightly"}
PLOTS = {"differences", "trend", "subjects", "calibration", "prompt-lengths", "completion-lengths"}


def page(evaluation: Evaluation) -> Page:
    return Page(render(evaluation, Rules(), LOCATIONS))


def plots(parsed: Page) -> set[str]:
    return {
        str(attributes["aria-labelledby"]).removesuffix("-title")
        for tag, attributes in parsed.elements
        if tag == "svg"
    }


def elements(parsed: Page) -> set[str]:
    return {tag for tag, _ in parsed.elements}


def attribute_names(parsed: Page) -> set[str]:
    return {name for _, attributes in parsed.elements for name in attributes}


def test_page_shows_regression_and_changed_documents(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, rows, 1.0, history)
    parsed = page(night(1, rows, 0.0, history, aside=HOSTILE))
    assert plots(parsed) == PLOTS
    assert "mmlu: acc lost 100.00 points against the last and best run, night 0" in parsed.text
    assert "Evaluation regression" in parsed.text
    assert "mmlu: 3 of its 57 tasks" in parsed.text
    assert "9 worse" in parsed.text
    assert "mmlu_anatomy/0" in parsed.text
    assert not {"script", "img", "link", "iframe"} & elements(parsed)
    assert len(parsed.values("id")) == len(set(parsed.values("id")))


def test_page_of_first_run_has_no_comparison(tmp_path: Path) -> None:
    parsed = page(night(0, requests(tmp_path / "data"), 0.5, History(None)))
    assert plots(parsed) == PLOTS - {"differences", "trend"}
    assert "nothing to compare with" in parsed.text
    assert "No earlier run in the history has the same documents" in parsed.text
    assert "No earlier run in the history asked the same documents." in parsed.text


def test_page_shows_chance_intervals_and_examples(tmp_path: Path) -> None:
    parsed = page(night(0, requests(tmp_path / "data"), 0.5, History(None)))
    text = " ".join(parsed.text.split())
    assert re.search(r"95 % interval \d+\.\d to \d+\.\d % ?; \d+ documents; chance 25 %", text)
    assert "mmlu: acc: " in text
    assert "Answer " in text
    assert "Run night 0 (id run0)" in text


def test_run_without_a_name_is_shown_by_its_time(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    for number, skill in enumerate((1.0, 0.0)):
        earlier = History.load(history.url)
        info = RunInfo(f"run{number}", BEGAN.replace(day=1 + number), "")
        evaluation = evaluate(rows, TASKS, answers(rows, skill), info, earlier, Rules())
        history.add(evaluation.entries, evaluation.samples)
    parsed = page(evaluation)
    assert "Evaluation: 2026-03-02 02:00 UTC" in parsed.text
    assert "points against 2026-03-01 02:00 UTC" in parsed.text


def test_page_remarks_on_certain_loss_within_margin(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, rows, 1.0, history)
    by_id, info = answers(rows, 0.0), RunInfo("run1", BEGAN.replace(day=9), "")
    parsed = page(evaluate(rows, TASKS, by_id, info, History.load(history.url), Rules(margin=1.0)))
    assert "Evaluation no regression" in parsed.text
    assert (
        "mmlu: acc lost 100.00 points against the last and best run, night 0: more than chance "
        "explains, but" in parsed.text
    )


def test_page_remarks_on_flaky_documents_and_weak_comparisons(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    for number, skill in enumerate((1.0, 0.2)):
        earlier = History.load(history.url)
        at = BEGAN + timedelta(days=number)
        info = RunInfo(f"run{number}", at, f"night {number}", setup="same")
        evaluation = evaluate(rows, TASKS, answers(rows, skill), info, earlier, Rules())
        earlier.add(evaluation.entries, evaluation.samples)
    text = page(evaluation).text
    assert "flaky documents: their values differ from those of night 0" in text
    assert re.search(r"mmlu: acc: 9 documents (show only losses of|are too few)", text)


def test_page_of_equal_run_lists_no_changes(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    night(0, rows, 0.5, history)
    parsed = page(night(1, rows, 0.5, history))
    assert "Evaluation no regression" in parsed.text
    assert parsed.text.count("Every document has the same value.") == 4


def test_page_escapes_texts_of_models_data_and_users(tmp_path: Path) -> None:
    rows, history = requests(tmp_path / "data"), History(str(tmp_path / "history"))
    hostile = [
        replace(
            row,
            prompt=row.prompt + HOSTILE,
            target=row.target + (HOSTILE if not row.choices else ""),
        )
        for row in rows
    ]
    for number, skill in enumerate((1.0, 0.0)):
        earlier = History.load(history.url)
        info = RunInfo(
            f"run{number}", BEGAN.replace(day=1 + number), HOSTILE, HOSTILE, HOSTILE, HOSTILE
        )
        evaluation = evaluate(
            hostile, TASKS, answers(hostile, skill, HOSTILE), info, earlier, Rules()
        )
        history.add(evaluation.entries, evaluation.samples)
    parsed = Page(render(evaluation, Rules(), {"Output": HOSTILE}))
    assert not {"script", "img"} & elements(parsed)
    assert not [name for name in attribute_names(parsed) if name.startswith("on")]
    assert "alert(1)" in parsed.text


def test_page_remarks_on_failed_truncated_and_unexecuted_answers(
    tmp_path: Path,
) -> None:
    rows = requests(tmp_path / "data")
    by_id = answers(rows, 1.0)
    by_id["mmlu_anatomy/0"] = (Answer(error="prompt_too_long: m"),)
    for name, (answer, *_) in by_id.items():
        if name.startswith("gsm8k"):
            by_id[name] = (replace(answer, finish_reason="length"),)
        if name.startswith("humaneval"):
            by_id[name] = (replace(answer, passed=None),)
    evaluation = evaluate(rows, TASKS, by_id, RunInfo("r", BEGAN, ""), History(None), Rules())
    parsed = page(evaluation)
    assert "1 of 17 rows failed; their documents count as wrong." in parsed.text
    assert "gsm8k_cot: 100\u00a0% of the completions ended at max_tokens" in parsed.text
    assert "humaneval: no metric. Its programs were not executed" in parsed.text
    results = evaluation.metrics()["results"]
    assert isinstance(results, dict)
    assert results["humaneval"] == {"alias": "humaneval", "sample_len": 3}
    assert results["mmlu_anatomy"]["acc,none"] == 2 / 3


def test_page_of_run_without_metrics_has_no_plots(tmp_path: Path) -> None:
    rows = [row for row in requests(tmp_path / "data") if row.task == "humaneval"]
    by_id: Answers = {row.id: (Answer(text="x"),) for row in rows}
    parsed = page(evaluate(rows, TASKS, by_id, RunInfo("r", BEGAN, ""), History(None), Rules()))
    assert plots(parsed) == set()
    assert "not executed" in parsed.text


def test_templates_do_not_switch_escaping_off() -> None:
    templates = list((Path(report.__file__).parent / "templates").glob("*.j2"))
    assert templates
    for template in templates:
        source = template.read_text()
        assert not re.search(r"\|\s*safe", source), template.name
        assert "{% autoescape" not in source, template.name
