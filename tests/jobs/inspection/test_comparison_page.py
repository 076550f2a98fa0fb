"""The page of a comparison: both answers, the first token that differs, prompts, and escapes."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.inspection.compare import main
from jobs.inspection.comparison_page import difference_plot
from jobs.inspection.distribution import Distribution
from pipeline.evals import scoring
from pipeline.evals.requests import to_table
from pipeline.evals.scoring import Sample
from pipeline.evals.suite import EvalRequest
from pipeline.output.publication import to_parquet
from pipeline.requests.tokenizer import Tokenizer
from tests.jobs.inspection.test_comparison import rows, write
from tests.jobs.inspection.test_prompts import CONFIG, run
from tests.pipeline.report.test_run_report import HOSTILE, Page

TOKENIZER = Path(__file__).parents[3] / "jobs" / "demo" / "tokenizer.model"


def page_of(tmp_path: Path, a: str, b: str) -> Page:
    file = tmp_path / "comparison.html"
    assert main([a, b, "--html", str(file), "--json"]) == 1
    return Page(file.read_text())


def runs(tmp_path: Path, changed: list[dict[str, Any]], **config: Any) -> tuple[str, str]:
    """Writes two runs over the rows of `test_comparison` and returns their URLs."""
    for name, content in (("a", rows()), ("b", changed)):
        write(tmp_path / name, content)
        gone = {"url": str(tmp_path / "gone.parquet"), "size": 9, "version": "1", "rows": 6}
        keys: dict[str, Any] = {"fingerprint_keys": {}, "config": {**CONFIG, **config}}
        description = {**keys, "input": [gone]}
        (tmp_path / name / "run.json").write_text(json.dumps(description))
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_page_marks_the_first_token_that_differs(tmp_path: Path) -> None:
    tokenizer = Tokenizer(TOKENIZER.read_bytes())
    ids = tokenizer.encode(["the sum is 5"])[0]
    changed = rows()
    changed[3].update(token_ids=[1, *ids], token_logprobs=[-0.5] * (len(ids) + 1), text="other")
    parsed = page_of(tmp_path, *runs(tmp_path, changed, tokenizer=str(TOKENIZER)))
    assert "row/1 · sample 1, token 2 is the first that differs" in " ".join(parsed.text.split())
    assert parsed.count("mark") == 2
    assert "log-prob -0.500" in parsed.values("title")
    assert "Rows whose completions differ: 1" in parsed.text
    assert "Differences of log-probs" not in parsed.text, "all common tokens have equal log-probs"


def test_page_says_why_rows_have_no_prompt(tmp_path: Path) -> None:
    changed = rows()
    changed[0].update(text=HOSTILE, token_ids=[9])
    parsed = page_of(tmp_path, *runs(tmp_path, changed))
    assert "Rows without prompts: " in parsed.text
    assert "alert(1)" in parsed.text
    assert not {"script", "img"} & {tag for tag, _ in parsed.elements}


def test_page_shows_prompts_of_the_input(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "b"):
        folder = run(tmp_path / name)
        content = rows()
        for number, row in enumerate(content):
            row.update(id=f"r{number // 2}")
        if name == "b":
            content[0].update(text="x", token_ids=[7])
        (tmp_path / "content").mkdir(exist_ok=True)
        write(tmp_path / "content" / name, content)
        (tmp_path / "content" / name / "data").rename(tmp_path / name / "data")
        folders.append(folder.url)
    parsed = page_of(tmp_path, *folders)
    assert "prompt 0" in parsed.text


def evaluation(folder: Path, value: float) -> str:
    """Writes an evaluation of one document, with its run."""
    request = EvalRequest("demo_choice/0", "demo_choice", 0, "Which? " * 9, " A", (" A", " B"))
    sample = Sample(request.id, request.task, "acc,none", value, " A" if value else " B", 0.75)
    content = rows()[:1]
    scores = [-1.0, -2.0] if value else [-2.0, -1.0]
    content[0].update(id=request.id, text=None, token_ids=None, token_logprobs=None)
    content[0].update(loglikelihood=scores)
    folder.mkdir()
    write(folder / "score", content)
    (folder / "score" / "run.json").write_text('{"fingerprint_keys": {}}')
    (folder / "samples.parquet").write_bytes(to_parquet(scoring.to_table([sample])))
    (folder / "requests.parquet").write_bytes(to_parquet(to_table([request])))
    return str(folder)


def test_page_of_evaluations_has_tasks_and_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluation(tmp_path / "a", 1.0)
    b = evaluation(tmp_path / "b", 0.0)
    parsed = page_of(tmp_path, a, b)
    figures = json.loads(capsys.readouterr().out)
    assert figures["tasks"][0]["difference"] == -1.0
    assert figures["runs"]["score"]["changed_choices"] == 1
    assert "demo_choice: acc: documents that changed: 1" in parsed.text
    assert "Rows that prefer another choice: 1" in parsed.text
    assert parsed.text.count("Which?") == 18, "the prompt stands beside the document and the row"
    assert main([a, b]) == 1
    assert "B less A in points" in capsys.readouterr().out
    assert main([a, a]) == 0


def test_run_and_evaluation_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluation(tmp_path / "a", 1.0)
    assert main([a, str(tmp_path / "a" / "score")]) == 2
    assert "expected two runs or two evaluations, got the runs score" in capsys.readouterr().err


def test_difference_plot_counts_bars_and_zeros() -> None:
    distribution = Distribution()
    for value in (0.0, 0.0, 1e-4, 1e-4, 0.5):
        distribution.add(value)
    plot = difference_plot("name", "title", "tokens", distribution)
    assert plot.rows[0] == ("0", "2")
    assert sum(int(count) for _, count in plot.rows) == 5
    assert "40\u00a0% of 5 tokens are equal" in plot.explanation
