"""A night's job -> machines, `ray job submit` with retries that resume, and no machines.

Runs on the head.

    python nightly.py --config nightly.json [--night 2026-11-24]

The configuration: {"command": [...], "workers": 2, "attempts": 3, "deadline_hours": 12}. In the
command {night} stands for the date, so that a second try of a night continues its run folder. Where
an Auto Scaling group holds the workers (SCALING=asg) it is raised before and lowered to zero after,
whatever happens; Ray's own autoscaler needs neither. jobs/submit.py does the submitting.

Exit codes: those of the job; 75 when it was interrupted or the deadline passed (the same night
continues it). The metric NightlySucceeded is 1 for 0 and 3, else 0. Standard library only.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

RELEASE = Path(__file__).resolve().parents[3]
INTERRUPTED = 75
SUCCESS = (0, 3)  # all rows committed, some perhaps with errors within the budget
KEYS = {"command": list, "workers": int, "attempts": int, "deadline_hours": int}


@dataclass(frozen=True)
class Night:
    """What to run."""

    command: tuple[str, ...]
    workers: int
    attempts: int
    deadline_hours: int

    @classmethod
    def read(cls, text: str, night: str) -> "Night":
        """Reads the configuration. Raises ValueError, which names what is wrong."""
        given = json.loads(text)
        if not isinstance(given, dict) or given.keys() != KEYS.keys():
            raise ValueError(
                f"expected the keys {sorted(KEYS)}, got "
                f"{sorted(given) if isinstance(given, dict) else given!r}"
            )
        for key, kind in KEYS.items():
            if type(given[key]) is not kind or not given[key]:
                raise ValueError(
                    f"{key}: expected a {kind.__name__} that is not empty or zero, got "
                    f"{given[key]!r}"
                )
        command = tuple(str(word).replace("{night}", night) for word in given["command"])
        return cls(command, given["workers"], given["attempts"], given["deadline_hours"])


class InterruptedNightError(Exception):
    """SIGTERM: the machine or the service is stopped."""


def say(text: str) -> None:
    """Writes a line to the service's log."""
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} nightly: {text}\n")
    sys.stdout.flush()


def wanted_workers(env: Mapping[str, str], count: int) -> None:
    """Sets the size of the Auto Scaling group, where there is one. Raises CalledProcessError."""
    if env["SCALING"] != "asg":
        return
    say(f"{env['ASG_NAME']}: {count} workers wanted")
    group = ["--auto-scaling-group-name", env["ASG_NAME"], "--desired-capacity", str(count)]
    subprocess.run(["aws", "autoscaling", "set-desired-capacity", *group], check=True)


def submit(night: Night, name: str) -> int:
    """Submits, tries again, and returns the job's exit code. Raises InterruptedNightError."""
    command = [
        sys.executable, str(RELEASE / "jobs" / "submit.py"), "--address", "http://127.0.0.1:8265",
        "--attempts", str(night.attempts), "--name", name, "--", *night.command,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=RELEASE)
    try:
        return process.wait(night.deadline_hours * 3600)
    except subprocess.TimeoutExpired:
        say(
            f"the deadline of {night.deadline_hours} hours has passed; the same night continues "
            "what is committed"
        )
        _stop(process)
        return INTERRUPTED
    except InterruptedNightError:
        _stop(process)
        raise


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends the submission, which stops its job; commits and the report may take a while."""
    process.terminate()
    try:
        process.wait(300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def report(env: Mapping[str, str], succeeded: bool) -> None:
    """Tells CloudWatch, whose alarm also notices when nothing is told.

    Raises CalledProcessError.
    """
    metric = [
        "--metric-name",
        "NightlySucceeded",
        "--value",
        str(int(succeeded)),
        "--dimensions",
        f"Cluster={env['CLUSTER']}",
    ]
    subprocess.run(
        ["aws", "cloudwatch", "put-metric-data", "--namespace", env["METRIC_NAMESPACE"], *metric],
        check=True,
    )


def run(night: Night, name: str, env: Mapping[str, str]) -> int:
    """Runs one night and returns its exit code; afterwards no worker is wanted any more."""
    say(f"{name}: {' '.join(night.command)}")
    code = 1
    breaker = Path(env["STATE"]) / "breaker-open"
    if breaker.exists():
        say(f"machines do not boot, so the night is not begun; reasons: {breaker.read_text()}")
        report(env, succeeded=False)
        return code
    try:
        wanted_workers(env, night.workers)
        code = submit(night, name)
    except InterruptedNightError:
        code = INTERRUPTED
    finally:
        try:
            wanted_workers(env, 0)
        finally:
            report(env, code in SUCCESS)
    say(f"{name}: exit code {code}")
    return code


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        "nightly.py", None, str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, type=Path, help="JSON file")
    parser.add_argument(
        "--night", default=f"{datetime.now(UTC):%Y-%m-%d}", help="which night; today's date in UTC"
    )
    given = parser.parse_args(arguments)
    try:
        night = Night.read(given.config.read_text(), given.night)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"nightly: {given.config}: {error}\n")
        return 2

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise InterruptedNightError

    signal.signal(signal.SIGTERM, interrupt)
    return run(night, f"nightly-{given.night}", os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
