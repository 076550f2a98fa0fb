import re

from jobs.cli.exit_codes import ExitCode
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
