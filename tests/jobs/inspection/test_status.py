"""status.py: the lines and the JSON about a run."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs.inspection.run_status import DriverEnd, RunStatus
from jobs.inspection.status import as_table, main

NOW_S = 1_000_000.0
RUNNING = RunStatus(
    url="s3://user:secret@bucket/run",
    task="generate",
    model="grok-1",
    finished=False,
    parts=45,
    parts_total=120,
    rows=45_000,
    rows_total=119_500,
    last_part="part-00044.parquet",
    last_part_s=NOW_S - 12,
    rows_per_s=135.0,
    ends=(),
)
STOPPED = dataclasses.replace(
    RUNNING, ends=(DriverEnd("0/1", "interrupted", "SIGTERM\x1b[2J", NOW_S),)
)


def shown(status: RunStatus) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(as_table(status, NOW_S))
    return captured.get()


def test_running_run_shows_rows_rate_and_time_left() -> None:
    text = " ".join(shown(RUNNING).split())
    assert "45,000 of 119,500 committed (37.7%), 45 of 120 parts" in text
    assert "part-00044.parquet, 12 s ago" in text
    assert "135.0 rows/s in the last ten minutes before that part; about 9 min 12 s left" in text
    assert "state running" in text


def test_lines_fit_eighty_columns_and_hide_secrets() -> None:
    for status in (RUNNING, STOPPED):
        text = shown(status)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "secret" not in text
        assert "\x1b" not in text


def test_stopped_run_shows_how_its_driver_ended() -> None:
    text = " ".join(shown(STOPPED).split())
    assert "state stopped: the same command continues" in text
    assert "driver 0/1 interrupted: SIGTERM" in text
    assert "rows/s" not in text


def test_run_may_be_the_first_word_or_a_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = {"fingerprint_keys": {}, "input": [], "config": {"shard_rows": 1, "limit": None}}
    (tmp_path / "run.json").write_text(json.dumps(description))
    for words in ([str(tmp_path)], ["--run", str(tmp_path)]):
        assert main([*words, "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["state"], figures["rows"], figures["rows_total"]) == ("running", 0, 0)


def test_missing_run_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    assert "give the run folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
