"""node/nightly.py as a process: machines start before the job, end after it, and failures alert."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.infra.cloud import Commands

ROOT = Path(__file__).parents[2]
SUBMIT = """
import json, pathlib, signal, sys, time
pathlib.Path({log!r}).write_text(json.dumps(sys.argv[1:]))
def stop(*_):
    pathlib.Path({log!r} + ".stopped").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
{body}
"""


class Nightly:
    """A release of its own whose jobs/submit.py does what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commands = folder, Commands(folder)
        self.commands.fake("aws")
        self.script = folder / "release" / "infra" / "terraform" / "node" / "nightly.py"
        self.script.parent.mkdir(parents=True)
        shutil.copy(ROOT / "infra" / "terraform" / "node" / "nightly.py", self.script)
        (folder / "release" / "jobs").mkdir()
        self.submitted = folder / "submitted"
        self.submits("sys.exit(0)")
        self.configure()

    def submits(self, body: str) -> None:
        (self.folder / "release" / "jobs" / "submit.py").write_text(
            SUBMIT.format(log=str(self.submitted), body=body)
        )

    def configure(self, **changed: object) -> None:
        standard = {
            "command": ["python", "jobs/evaluate.py", "-o", "s3://b/{night}"],
            "workers": 2,
            "attempts": 5,
            "deadline_hours": 12,
        }
        (self.folder / "nightly.json").write_text(json.dumps(standard | changed))

    def start(self, **env: str) -> "subprocess.Popen[str]":
        settings = {
            "SCALING": "asg",
            "ASG_NAME": "test-workers",
            "CLUSTER": "test",
            "METRIC_NAMESPACE": "GrokBatch",
            "STATE": str(self.folder),
        }
        command = [
            sys.executable,
            str(self.script),
            "--config",
            str(self.folder / "nightly.json"),
            "--night",
            "2026-11-24",
        ]
        everything = self.commands.env(**settings | env)
        return subprocess.Popen(
            command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, **env: str) -> tuple[int, str, str]:
        process = self.start(**env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def wanted(self) -> list[str]:
        return [
            call[-1] for call in self.commands.called("aws", "autoscaling", "set-desired-capacity")
        ]

    def succeeded(self) -> list[str]:
        told = self.commands.called("aws", "cloudwatch", "put-metric-data")
        return [call[call.index("--value") + 1] for call in told if "NightlySucceeded" in call]


@pytest.fixture
def nightly(tmp_path: Path) -> Nightly:
    return Nightly(tmp_path)


def test_night_raises_the_group_submits_with_retries_and_lowers_it(nightly: Nightly) -> None:
    code, out, err = nightly.run()
    assert code == 0, out + err
    assert nightly.wanted() == ["2", "0"]
    assert nightly.succeeded() == ["1"]
    options, _, command = " ".join(json.loads(nightly.submitted.read_text())).partition(" -- ")
    assert options == "--address http://127.0.0.1:8265 --attempts 5 --name nightly-2026-11-24"
    assert command == "python jobs/evaluate.py -o s3://b/2026-11-24"


def test_night_with_ray_autoscaling_keeps_the_group(nightly: Nightly) -> None:
    assert nightly.run(SCALING="ray")[0] == 0
    assert (nightly.wanted(), nightly.succeeded()) == ([], ["1"])


@pytest.mark.parametrize(("code", "told"), [(3, "1"), (1, "0"), (4, "0"), (5, "0"), (75, "0")])
def test_exit_code_of_the_job_is_returned_and_alerted(
    code: int, told: str, nightly: Nightly
) -> None:
    nightly.submits(f"sys.exit({code})")
    assert nightly.run()[0] == code
    assert (nightly.wanted(), nightly.succeeded()) == (["2", "0"], [told])


def test_machines_end_when_the_service_stops(nightly: Nightly) -> None:
    nightly.submits("time.sleep(60)")
    process = nightly.start()
    for _ in range(300):
        if nightly.submitted.exists():
            break
        time.sleep(0.1)
    time.sleep(0.3)  # its handler of SIGTERM stands
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 75
    assert Path(f"{nightly.submitted}.stopped").exists(), (
        "the job is asked to end, so that it commits"
    )
    assert (nightly.wanted(), nightly.succeeded()) == (["2", "0"], ["0"])
    process.communicate()


def test_job_is_stopped_at_the_deadline(nightly: Nightly) -> None:
    """In this process: hours are the smallest deadline that a configuration can name."""
    nightly.submits("time.sleep(60)")
    spec = importlib.util.spec_from_file_location("nightly", nightly.script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nightly"] = module  # where its dataclass looks for its types
    try:
        spec.loader.exec_module(module)
        assert (
            module.submit(
                module.Night(("python", "jobs/evaluate.py"), 1, 1, 1 / 1200), "nightly-2026-11-24"
            )
            == 75
        )
    finally:
        del sys.modules["nightly"]
    assert Path(f"{nightly.submitted}.stopped").exists()


def test_night_is_not_begun_while_machines_do_not_boot(nightly: Nightly) -> None:
    (nightly.folder / "breaker-open").write_text("s3://runs/cluster/boots/1-i-1-failed\n")
    code, out, _ = nightly.run()
    assert code == 1
    assert "s3://runs/cluster/boots/1-i-1-failed" in out
    assert (nightly.wanted(), nightly.succeeded()) == ([], ["0"])
    assert not nightly.submitted.exists()


def test_night_without_machines_fails_and_lowers_the_group(
    nightly: Nightly,
) -> None:
    nightly.commands.fake("aws", "sys.exit('AccessDenied' if args[-1] == '2' else 0)")
    code, _, err = nightly.run()
    assert code == 1
    assert "AccessDenied" in err
    assert not nightly.submitted.exists()
    assert (nightly.wanted(), nightly.succeeded()) == (["2", "0"], ["0"])


def test_failure_is_alerted_if_the_group_cannot_be_lowered(nightly: Nightly) -> None:
    nightly.commands.fake(
        "aws", "sys.exit('Throttling' if args[-1] == '0' and args[0] == 'autoscaling' else 0)"
    )
    assert nightly.run()[0] == 1
    assert nightly.succeeded() == ["1"], "the job itself was done"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"workers": 0}, "workers: expected a int that is not empty or zero, got 0"),
        ({"command": "python"}, "command: expected a list"),
        ({"retries": 1}, "expected the keys"),
    ],
)
def test_wrong_configuration_is_named_before_anything_starts(
    changed: dict[str, object], said: str, nightly: Nightly
) -> None:
    nightly.configure(**changed)
    code, _, err = nightly.run()
    assert code == 2
    assert said in err
    assert nightly.commands.calls() == []
