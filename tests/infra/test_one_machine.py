"""infra/one-machine: units that systemd accepts, with commands that the programs understand.

And the figures of docs/clusters.
"""

import configparser
import math
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from actors.model import arithmetic
from actors.model.config import GROK_1, parameter_shapes
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.evaluation.config import EvaluateConfig
from jobs.planning import plan
from jobs.submission.config import SubmitConfig, split_command_line
from tests.infra.tools import program
from tests.jobs.runs import ROOT

FOLDER = ROOT / "infra" / "one-machine"
UNITS = sorted(FOLDER.iterdir())


def unit(name: str) -> configparser.ConfigParser:
    """Returns a unit's sections; of a key that is there several times, the last."""
    made = configparser.ConfigParser(strict=False, interpolation=None)
    made.optionxform = str  # type: ignore[assignment, method-assign]
    made.read_string((FOLDER / name).read_text().replace("\\\n", " "))
    return made


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_valid_for_systemd(path: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "part of systemd")

    def complaints(text: str) -> list[str]:
        (tmp_path / path.name).write_text(text)
        if path.suffix == ".timer":
            (tmp_path / path.with_suffix(".service").name).write_text(
                (FOLDER / path.with_suffix(".service").name).read_text()
            )
        command = [analyze, "verify", "--man=no", str(tmp_path / path.name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said = [
            line
            for line in done.stderr.splitlines()
            if str(tmp_path) in line or line.startswith(path.stem)
        ]
        # nothing is installed in /opt here
        return [line for line in said if "is not executable" not in line]

    assert complaints(path.read_text()) == []
    assert complaints(path.read_text().replace("[Install]", "NoSuchKey=1\n[Install]")) != []


def test_nightly_command_is_valid_and_ends_before_the_next() -> None:
    service, timer = (
        unit("grok-batch-nightly.service")["Service"],
        unit("grok-batch-nightly.timer")["Timer"],
    )
    python, script, *words = shlex.split(service["ExecStart"])
    assert (python, script) == ("/opt/grok-batch/.venv/bin/python", "jobs/submit.py")
    flags, command = split_command_line(words)
    config = parse(SubmitConfig, flags, program="", description="")
    assert config.here
    assert timer["OnCalendar"] == f"*-*-* {config.night_begins}:00 UTC"
    assert service["RuntimeMaxSec"] == "22h"
    assert command[:2] == [python, "jobs/evaluate.py"]
    inner = [
        str(ROOT / "jobs/configs/nightly.yaml") if word == "/etc/grok-batch/nightly.yaml" else word
        for word in command[2:]
    ]
    asked = parse(EvaluateConfig, inner, program="", description="")
    assert (asked.output, asked.name) == ("/srv/grok-batch/nightly/{night}", "{night}")


def test_head_listens_on_this_machine_only() -> None:
    service = unit("ray-head.service")["Service"]
    assert "--node-ip-address=127.0.0.1" in service["ExecStart"]
    assert "--dashboard-host=127.0.0.1" in service["ExecStart"]
    text = (FOLDER / "ray-head.service").read_text()
    assert "Environment=RAY_AUTH_MODE=token" in text
    assert "Environment=RAY_JOB_STOP_WAIT_TIME_S=120" in text


# -- docs/clusters/index.md ------------------------------------------------------------

PLAN = "$ grok-batch plan --rows 1e6 --prompt-tokens 500 --completion-tokens 128"


def test_documented_plan_is_the_output_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "clusters" / "index.md").read_text()
    _, _, block = page.partition(f"{PLAN}\n")
    documented, _, _ = block.partition("```")

    # One kind of machine: the simulation of all takes four times as long.
    arguments = [*shlex.split(PLAN)[3:], "--gpu", "h100"]
    assert plan.main(arguments) == ExitCode.OK

    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("8xH100 ") for line in printed)
    for line in printed:
        assert line in documented.splitlines()


def test_documented_bytes_and_parameters_are_those_of_the_model() -> None:
    shapes = parameter_shapes(GROK_1)
    parameters = 0.0
    for tensor in shapes:
        share = 0.25 if "experts" in tensor.axes else 1.0
        parameters += share * math.prod(tensor.shape)

    page = (ROOT / "docs" / "clusters" / "index.md").read_text()
    assert f"reads {shapes.stored_bytes / 1e9:.2f} GB of weights" in page
    assert f"{arithmetic.cache_bytes(GROK_1, 2):,} bytes per cached token" in page
    assert f"{parameters / 1e9:.2f} billion parameters" in page


def test_documented_capacity_is_that_of_the_full_size_plan() -> None:
    full_size = (ROOT / "docs" / "full-size.md").read_text()
    page = (ROOT / "docs" / "clusters" / "index.md").read_text()
    fit = [
        int(each.replace(",", ""))
        for each in re.findall(
            r"^KV tokens that fit +([\d,]+) +([\d,]+)$", full_size, re.MULTILINE
        )[0]
    ]
    assert (
        f"| KV tokens that fit | {fit[0] / 1e6:.1f} million | {fit[1] / 1e6:.1f} million |" in page
    )
    assert f"| sequences of 8,192 tokens that fit | {fit[0] // 8192} | {fit[1] // 8192} |" in page
