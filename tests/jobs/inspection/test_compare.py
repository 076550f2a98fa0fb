"""compare.py: the exit code, the lines and the JSON of a comparison."""

import json
from pathlib import Path

import pytest

from jobs.inspection.compare import main
from tests.jobs.inspection.test_comparison import rows, write


@pytest.fixture
def urls(tmp_path: Path) -> dict[str, str]:
    """Two equal runs, and one in which a completion differs."""
    different = rows()
    different[3].update(text="a \x1b[2J", token_ids=[1, 4], token_logprobs=[-0.5, -9.0])
    found: dict[str, str] = {}
    for name, content in {"a": rows(), "same": rows(), "different": different}.items():
        folder = write(tmp_path / name, content)
        (tmp_path / name / "run.json").write_text("{}")
        found[name] = folder.url
    return found


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_equal_runs_have_exit_code_zero(
    urls: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([urls["a"], urls["same"]]) == 0
    text = capsys.readouterr().out
    assert "equal in every row and value" in text
    assert "36 compared, all equal" in text


def test_different_runs_show_rows_and_have_exit_code_one(
    urls: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([urls["a"], urls["different"]]) == 1
    text = capsys.readouterr().out
    assert "1 rows differ (8.33%), the earliest at token 1" in text
    assert "row/1" in text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_json_has_the_figures(urls: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-a", urls["a"], "--run-b", urls["different"], "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["identical"] is False
    assert figures["rows"] == {"a": 12, "b": 12, "common": 12}
    assert figures["first_diverging_token"] == {"1": 1}
    assert figures["logprob_differences"]["count"] == 34
    assert figures["divergences"][0]["id"] == "row/1"


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b"]])
def test_missing_runs_are_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: ")
