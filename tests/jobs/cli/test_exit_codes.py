import re
from pathlib import Path

import pytest

from jobs.cli.exit_codes import LIMIT_FILE, ExitCode, has_limit_note, write_limit_note
from pipeline.errors import InterruptedRunError, LimitReachedError
from pipeline.monitoring.run_log import LogFormat, RunLog
from tests.jobs.runs import ROOT

SPECIAL = {ExitCode.REGRESSION, ExitCode.TOO_FEW_ROWS}  # of evaluation and of synthesis only


def test_exit_codes_are_those_of_the_interface() -> None:
    values = {code.name: code.value for code in ExitCode}

    assert values == {
        "OK": 0,
        "FAILED": 1,
        "BAD_ARGUMENTS": 2,
        "ROW_ERRORS": 3,
        "OVER_BUDGET": 4,
        "REGRESSION": 5,
        "TOO_FEW_ROWS": 6,
        "INTERRUPTED": 75,
    }


def test_readme_lists_the_exit_codes_of_the_main_job() -> None:
    section = (ROOT / "README.md").read_text().partition("### Exit codes")[2]
    table = section.partition("\n#")[0]

    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]

    assert sorted(documented) == sorted(set(ExitCode) - SPECIAL)


def test_only_committed_runs_are_complete() -> None:
    complete = {code for code in ExitCode if code.is_complete}

    assert complete == {ExitCode.OK, ExitCode.ROW_ERRORS}


def test_note_is_written_for_limits_where_a_program_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "limit"
    write_limit_note(LimitReachedError("--max-cost 5: over"), {})
    write_limit_note(InterruptedRunError("SIGTERM"), {LIMIT_FILE: str(path)})
    assert not path.exists()

    write_limit_note(LimitReachedError("--max-cost 5: over"), {LIMIT_FILE: str(path)})
    assert path.read_text() == "--max-cost 5: over"


@pytest.mark.parametrize("form", ["text", "json"])
def test_note_is_found_in_the_log_of_a_job(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(form)
    log.event("notice", "note: --max-cost")
    log.failed(InterruptedRunError("the run received SIGTERM"), 75, "interrupted")
    assert not has_limit_note(capsys.readouterr().err)

    log.failed(LimitReachedError("--deadline 8h: the time is up"), 75, "interrupted")
    log.event("finished", "done")
    assert has_limit_note(capsys.readouterr().err)
