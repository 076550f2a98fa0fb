"""plan.py: the table and the JSON of a plan."""

import json

import pytest

from jobs.cli.exit_codes import ExitCode
from jobs.planning import plan

ROWS = ["--rows", "48", "--prompt-tokens", "60", "--completion-tokens", "12", "--gpu", "h100"]


def test_plan_prints_a_table_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(ROWS) == ExitCode.OK

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["machine", "mesh", "slots", "hours"]
    assert lines[1].startswith("8xH100")
    assert lines[-1] == "all times are estimates: no kernel has been measured on these machines"
    assert max(len(line) for line in lines) <= 80


def test_plan_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([*ROWS, "--json", "true"]) == ExitCode.OK

    output = json.loads(capsys.readouterr().out)
    (machine,) = output["machines"]
    assert output["rows"] == 48
    assert machine["fits"] is True
    assert machine["mesh"] == "1x8"
    low, expected, high = machine["hours"]
    assert 0 < low < expected < high
    assert set(machine["seconds"]) == {"load", "compile", "prefill", "decode", "tail"}


def test_plan_without_rows_is_a_bad_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--prompt-tokens", "60"]) == ExitCode.BAD_ARGUMENTS

    assert "--rows" in capsys.readouterr().err
