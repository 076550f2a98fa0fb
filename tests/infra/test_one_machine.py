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
from jobs.cli.parser import parse
from jobs.evaluation.config import EvaluateConfig
from jobs.run.dry_run import H100
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

MACHINES = {
    "8×H100": (H100.flops_per_s, H100.bytes_per_s, 55),
    "8×H200": (H100.flops_per_s, 0.7 * 4.8e12, 63),
}


@pytest.mark.parametrize("name", MACHINES)
def test_documented_speeds_and_prices_follow_from_the_model(
    name: str,
) -> None:
    flops_per_s, bytes_per_s, price = MACHINES[name]
    shapes = parameter_shapes(GROK_1)
    met = sum(
        math.prod(tensor.shape) * (0.25 if "experts" in tensor.axes else 1) for tensor in shapes
    )
    step_s = (shapes.stored_bytes + 64 * 1000 * arithmetic.cache_bytes(GROK_1, 2)) / (
        8 * bytes_per_s
    )
    decode, prefill = 64 / step_s, 8 * flops_per_s / (2 * met)
    hours = 1e6 * (500 / prefill + 128 / decode) / 3600
    cost = hours * price
    page = (ROOT / "docs" / "clusters" / "index.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    assert (
        f"| {step_s * 1000:.1f} ms | {decode:,.0f} tokens/s | {prefill:,.0f} tokens/s |" in lines[0]
    )
    assert (
        lines[1] == f"| {name} | {hours:.1f} | {cost:,.0f} $ | {cost / 128:.2f} $ "
        f"| {cost / 628:.2f} $ | {2 * cost:,.0f} $ |"
    )
    assert f"{shapes.stored_bytes / 1e9:.2f} GB are read" in page
    assert f"{met / 1e9:.2f} billion" in page


def test_documented_capacity_is_that_of_the_full_size_plan() -> None:
    plan = (ROOT / "docs" / "full-size.md").read_text()
    page = (ROOT / "docs" / "clusters" / "index.md").read_text()
    fit = [
        int(each.replace(",", ""))
        for each in re.findall(r"^KV tokens that fit +([\d,]+) +([\d,]+)$", plan, re.MULTILINE)[0]
    ]
    assert (
        f"| KV tokens that fit | {fit[0] / 1e6:.1f} million | {fit[1] / 1e6:.1f} million |" in page
    )
    assert f"| sequences of 8,192 tokens that fit | {fit[0] // 8192} | {fit[1] // 8192} |" in page
