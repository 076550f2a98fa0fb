"""show.py: tables of rows that fit a terminal, and rows whole."""

from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import score_dataset
from jobs.inspection.show import main, whole_row
from pipeline.requests.tokenizer import Tokenizer
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO

BACKEND = FakeBackend(draws_plots=False)


@pytest.fixture
def run_url(tmp_path: Path) -> str:
    """A run of six rows, of which the third is too long."""
    ids = [[row + 1] for row in range(6)]
    ids[2] = [1] * 100
    table = pa.table(
        {"id": list("abcdef"), "prompt_token_ids": pa.array(ids, pa.list_(pa.int32()))}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    words = ["-i", tmp_path / "in.parquet", "-o", tmp_path / "run", "--model", "demo"]
    words += ["--max-len", 64, "--max-tokens", 2, "--shard-rows", 4]
    assert score_dataset.main([str(word) for word in words], BACKEND) == 3
    return str(tmp_path / "run")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_table_of_a_run_fits_eighty_columns(
    run_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([run_url, "--limit", "5"]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert [name in text for name in "abcdef"].count(True) >= 5
    assert "│ f " not in text


def test_conditions_choose_rows(run_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([run_url, "--errors", "--columns", "id,error_code"]) == 0
    assert "│ c " in capsys.readouterr().out
    assert main([run_url, "--where", "prompt_tokens == 1 and id > 'd'", "--columns", "id"]) == 0
    text = capsys.readouterr().out
    assert ["│ e " in text, "│ f " in text, "│ d " in text] == [True, True, False]
    assert main([run_url, "--where", "prompt_tokens > 500"]) == 0
    assert "no row fulfils the conditions" in " ".join(capsys.readouterr().out.split())


def test_row_is_shown_whole_by_its_id(run_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", run_url, "--id", "c"]) == 0
    text = capsys.readouterr().out
    assert "error_message" in text
    assert "token_logprobs" not in text, "nulls are left out"
    assert "probability of a token" not in text, "no colours, no legend"


def test_legend_is_shown_where_there_are_colours(
    run_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")  # Rich keeps the codes of a style once made
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["--run", run_url, "--id", "c"]) == 0
    assert "probability of a token" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["--run", run_url, "--id", "c"]) == 0
    assert "probability of a token" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--columns", "id,texts"], "texts is not a column"),
        (["--where", "token > 1"], "no column 'token'"),
        (["--limit", "0"], "--limit: expected at least 1"),
    ],
)
def test_wrong_flags_are_errors_of_one_line(
    run_url: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([run_url, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_missing_run_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "give the run folder" in capsys.readouterr().err


@pytest.mark.parametrize("has_choices", [False, True])
def test_scored_tokens_are_coloured_by_their_log_probs(has_choices: bool) -> None:
    tokenizer = Tokenizer((DEMO / "tokenizer.model").read_bytes())
    ids = tokenizer.encode(["The answer is 32."])[0]
    row: dict[str, Any] = {"scored_token_ids": ids, "scored_logprobs": [-9.0] * len(ids)}
    if has_choices:
        row = {name: [value, value[:2]] for name, value in row.items()}
    console = Console(width=80, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(whole_row(row, tokenizer))
    text = captured.get()
    assert text.count("scored text") == 1 + has_choices
    assert "48;2;198;40;40" in text
    with console.capture() as captured:
        console.print(whole_row({**row, "scored_logprobs": None}, tokenizer))
    assert "scored text" not in captured.get()


def test_completion_is_coloured_by_its_log_probs() -> None:
    tokenizer = Tokenizer((DEMO / "tokenizer.model").read_bytes())
    ids = tokenizer.encode(["The answer is 32."])[0]
    row = {
        "text": "The answer is 32.",
        "token_ids": array("i", ids),
        "token_logprobs": [-9.0] * len(ids),
    }
    console = Console(width=80, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(whole_row(row, tokenizer))
    assert "48;2;198;40;40" in captured.get()
    with console.capture() as captured:
        console.print(whole_row(row | {"token_logprobs": None}, tokenizer))
    assert "48;2" not in captured.get()
