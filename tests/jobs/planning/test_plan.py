"""plan.py: the table and the JSON of a plan."""

import json
import re
from pathlib import Path

import pytest

from jobs.cli.exit_codes import ExitCode
from jobs.planning import plan

DOCS = Path(__file__).parents[3] / "docs" / "planning.md"
ROWS = ["--rows", "48", "--prompt-tokens", "60", "--completion-tokens", "12", "--gpu", "h100"]


def test_plan_prints_a_table_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(ROWS) == ExitCode.OK

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "48 rows, 2,877 prompt tokens, 572 generated"
    assert lines[1] == "hours and USD of 1 machine, start-up included:"
    assert lines[3].split()[:4] == ["machine", "mesh", "slots", "hours"]
    assert lines[4].startswith("8xH100")
    assert lines[-1] == "all times are estimates: no kernel has been measured on these machines"
    assert max(len(line) for line in lines) <= 80


def test_plan_prints_json_with_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([*ROWS, "--json"]) == ExitCode.OK

    output = json.loads(capsys.readouterr().out)
    (machine,) = output["machines"]
    assert output["rows"] == 48
    assert machine["fits"] is True
    assert machine["mesh"] == "1x8"
    low, expected, high = machine["hours"]
    assert 0 < low < expected < high

    documented: set[str] = set()
    for cell in re.findall(r"^\| (`[^|]+) \|", DOCS.read_text(), re.MULTILINE):
        documented.update(re.findall(r"`([a-z_.]+)`", cell))
    keys = {*output, *machine, *(f"seconds.{name}" for name in machine["seconds"])}
    assert keys - {"seconds"} <= documented


def test_plan_without_rows_is_a_bad_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["--prompt-tokens", "60"]) == ExitCode.BAD_ARGUMENTS

    assert "--rows" in capsys.readouterr().err
