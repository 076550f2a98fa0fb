"""jobs/submission/attempts.py: attempts on this machine and on a cluster."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from jobs.submission.attempts import (
    AttemptResult,
    ChildProcess,
    RayJobs,
    dashboard_url,
    open_runner,
)
from jobs.submission.config import SubmitConfig
from jobs.submission.retry import run_with_retries
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

ROOT = Path(__file__).parents[3]
COMMAND = ["python", "jobs/score_dataset.py", "-C", "job.yaml"]
ENTRYPOINT = "python jobs/score_dataset.py -C job.yaml"


# -- on this machine -------------------------------------------------------------------

COUNTING = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
path.write_text((path.read_text() if path.exists() else "") + "x")
sys.exit(int(sys.argv[1 + len(path.read_text())]))
"""


def here(*command: object, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    program = [
        sys.executable,
        "jobs/submit.py",
        "--here",
        "true",
        "--pause-s",
        "0",
        *flags,
        "--",
        *map(str, command),
    ]
    return subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_local_command_is_a_process_that_is_retried(tmp_path: Path) -> None:
    done = here(
        sys.executable, "-c", COUNTING, tmp_path / "{night}", 75, 1, 3, flags=["--accept", "0,3"]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "attempt 1 of 5: exit code 75; the same command again in 0 s",
        "attempt 2 of 5: exit code 1; the same command again in 0 s",
        "attempt 3 of 5: exit code 3",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [datetime.now(UTC).date().isoformat()]


def test_local_command_that_a_limit_ended_is_not_repeated() -> None:
    code = (
        "from jobs.cli.exit_codes import write_limit_note as write\n"
        "from pipeline.errors import LimitReachedError\n"
        "write(LimitReachedError('--max-cost 5'))\n"
        "raise SystemExit(75)"
    )
    done = here(sys.executable, "-c", code)
    assert done.returncode == 75, done.stderr
    assert done.stderr.splitlines() == ["attempt 1 of 5: exit code 75"]


def test_invalid_submission_is_a_one_line_error() -> None:
    missing = here("no-such-program")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "cannot start no-such-program" in missing.stderr
    nothing = subprocess.run(
        [sys.executable, "jobs/submit.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert nothing.returncode == 2
    assert "the command is missing" in nothing.stderr


def test_local_signal_is_forwarded_and_ends_retries(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); "
        "print('up', flush=True); time.sleep(60)"
    )
    program = [
        sys.executable,
        "jobs/submit.py",
        "--here",
        "true",
        "--",
        sys.executable,
        "-c",
        script,
    ]
    process = subprocess.Popen(
        program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, "attempt 1 of 5: exit code 75\n")


def test_killed_command_has_no_exit_code_of_its_own() -> None:
    assert ChildProcess().run(
        [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    ) == AttemptResult(None)


# -- on a cluster ----------------------------------------------------------------------


class FakeCluster:
    """Ray's job server as its client shows it; `script` says how jobs end."""

    second_line = "second line\n"

    def __init__(self, *script: tuple[str, int | None]) -> None:
        self.jobs: dict[str, SimpleNamespace] = {}
        self.script, self.submitted, self.refuse = list(script), list[str](), list[Exception]()

    def __call__(self, address: str) -> "FakeCluster":
        if self.refuse:
            raise self.refuse.pop(0)
        return self

    def list_jobs(self) -> list[SimpleNamespace]:
        return list(self.jobs.values())

    def add(self, name: str, entrypoint: str, status: str, code: int | None = None) -> None:
        ended = status in {"SUCCEEDED", "FAILED", "STOPPED"}
        state = SimpleNamespace(value=status, is_terminal=lambda: ended)
        self.jobs[name] = SimpleNamespace(
            submission_id=name, entrypoint=entrypoint, status=state, driver_exit_code=code
        )

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]
    ) -> str:
        if submission_id in self.jobs:
            raise RuntimeError(
                f"Request failed with status code 500: Job with submission_id {submission_id} "
                "already exists."
            )
        self.submitted.append(submission_id)
        self.runtime_env = runtime_env
        self.add(submission_id, entrypoint, "RUNNING")
        return submission_id

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "first line\n"
        if len(self.script) > 1 and self.script[0][0] == "broken":
            self.script.pop(0)
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        yield self.second_line
        status, code = self.script.pop(0)
        if status == "vanished":
            self.jobs.clear()
        else:
            self.add(job, self.jobs[job].entrypoint, status, code)

    def get_job_info(self, job: str) -> SimpleNamespace:
        if job not in self.jobs:
            raise RuntimeError("Request failed with status code 404: Job does not exist.")
        return self.jobs[job]


def on(cluster: Callable[[str], Any], **more: Any) -> RayJobs:
    standard: dict[str, Any] = {"retry_window_s": 1.0, "poll_s": 0.01}
    return RayJobs(
        "http://head:8265", "nightly", None, log=RunLog(), client=cluster, **(standard | more)
    )


@pytest.mark.parametrize(
    ("status", "code", "ended"),
    [
        ("SUCCEEDED", 0, AttemptResult(0)),
        ("SUCCEEDED", None, AttemptResult(0)),
        ("FAILED", 3, AttemptResult(3)),
        ("FAILED", None, AttemptResult(None)),
        ("FAILED", -9, AttemptResult(None)),
        ("STOPPED", 75, AttemptResult(75, stopped=True)),
        ("vanished", None, AttemptResult(None)),
    ],
)
def test_job_exit_code_is_that_of_its_driver(
    status: str, code: int | None, ended: AttemptResult, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = FakeCluster((status, code))
    assert on(cluster, env={"GROK_BATCH_COMMIT": "abc"}).run(COMMAND) == ended
    assert cluster.submitted == ["nightly-1"]
    assert cluster.runtime_env == {"env_vars": {"GROK_BATCH_COMMIT": "abc"}}
    assert capsys.readouterr().out == "first line\nsecond line\n"


@pytest.mark.parametrize(
    ("line", "code", "stopped"),
    [
        ("interrupted: --max-cost 5: the run has cost 4.9 in all its calls", 75, True),
        ('{"event": "interrupted", "error": "LimitReachedError"}', 75, True),
        ("interrupted: the run received SIGTERM", 75, False),
        ("note: interrupted: --max-cost", 75, False),
        ("interrupted: --deadline 8h: the time is up", 1, False),
    ],
)
def test_job_that_a_limit_ended_counts_as_stopped(line: str, code: int, stopped: bool) -> None:
    cluster = FakeCluster(("FAILED", code))
    cluster.second_line = f"{line}\n"
    assert on(cluster).run(COMMAND) == AttemptResult(code, stopped=stopped)


def test_attempts_keep_counting_on_a_new_cluster() -> None:
    cluster = FakeCluster(("FAILED", 75), ("vanished", None), ("SUCCEEDED", 0))
    jobs = on(cluster)
    assert [jobs.run(COMMAND) for _ in range(3)] == [
        AttemptResult(75),
        AttemptResult(None),
        AttemptResult(0),
    ]
    assert cluster.submitted == ["nightly-1", "nightly-2", "nightly-3"]


def test_running_job_is_joined_and_ended_job_is_followed() -> None:
    cluster = FakeCluster(("SUCCEEDED", 0), ("SUCCEEDED", 0))
    cluster.add("nightly-9", ENTRYPOINT, "FAILED", 75)
    cluster.add("nightly-10", ENTRYPOINT, "RUNNING")
    cluster.add("nightly-2026-99", "another", "RUNNING")
    cluster.add("other-11", "another", "RUNNING")
    jobs = on(cluster)
    assert jobs.run(COMMAND) == AttemptResult(0)
    assert cluster.submitted == []
    assert jobs.run(COMMAND) == AttemptResult(0)
    assert cluster.submitted == ["nightly-11"]


def test_name_of_another_command_is_refused() -> None:
    cluster = FakeCluster()
    cluster.add("nightly-1", "python other.py", "RUNNING")
    with pytest.raises(ConfigError, match=r"nightly-1 runs another command \(python other.py\)"):
        on(cluster).run(COMMAND)


def test_broken_log_connection_resumes_where_it_broke(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = FakeCluster(("broken", None), ("broken", None), ("SUCCEEDED", 0))
    assert on(cluster).run(COMMAND) == AttemptResult(0)
    assert capsys.readouterr().out == "first line\nsecond line\n"


class Signalled(FakeCluster):
    """A signal arrives while the log is followed."""

    stopped: str | None = None

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "working\n"
        if self.stopped is None:
            raise KeyboardInterrupt
        yield "committed\n"
        self.add(job, self.jobs[job].entrypoint, "STOPPED", 75)

    def stop_job(self, job: str) -> bool:
        self.stopped = job
        return True


def test_signal_stops_the_job_and_waits_for_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Signalled()
    assert run_with_retries(on(cluster), COMMAND, SubmitConfig(pause_s=0), RunLog()) == 75
    assert (cluster.stopped, cluster.submitted) == ("nightly-1", ["nightly-1"])
    said = capsys.readouterr()
    assert said.out == "working\ncommitted\n"
    assert "job nightly-1 is asked to stop" in said.err


def test_signal_with_detach_leaves_the_job_running() -> None:
    cluster = Signalled()
    with pytest.raises(KeyboardInterrupt):
        on(cluster, detach=True).run(COMMAND)
    assert (cluster.stopped, cluster.jobs["nightly-1"].status.value) == (None, "RUNNING")


def test_silent_cluster_is_retried_for_a_limited_time() -> None:
    cluster = FakeCluster(("SUCCEEDED", 0))
    cluster.refuse = [ConnectionError("Failed to connect to Ray at address: http://head:8265.")] * 3
    assert on(cluster).run(COMMAND) == AttemptResult(0)
    cluster.refuse = [ConnectionError("Failed to connect")] * 1000
    assert on(cluster, retry_window_s=0.2).run(COMMAND) == AttemptResult(None)
    assert cluster.refuse, "not every attempt was made"


def test_lost_response_starts_no_second_job() -> None:
    cluster = FakeCluster(("SUCCEEDED", 0))
    jobs = on(cluster)
    first = cluster.submit_job

    def deaf(**job: Any) -> str:
        first(**job)
        cluster.submit_job = first  # type: ignore[method-assign]
        raise ConnectionError("Connection reset by peer")

    cluster.submit_job = deaf  # type: ignore[method-assign, assignment]
    assert jobs.run(COMMAND) == AttemptResult(0)
    assert cluster.submitted == ["nightly-1"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Request failed with status code 401: Unauthorized"),
        OSError("403 Client Error: Forbidden for url"),
        AuthenticationError("Authentication failed: Forbidden: Invalid authentication token"),
    ],
)
def test_refused_token_is_not_retried(error: Exception) -> None:
    cluster = FakeCluster()
    cluster.refuse = [error]
    with pytest.raises(ConfigError, match="refuses the token"):
        on(cluster, retry_window_s=60).run(COMMAND)


def test_unexpected_error_is_raised() -> None:
    cluster = FakeCluster()
    cluster.refuse = [KeyError("a fault of this program")]
    with pytest.raises(KeyError):
        on(cluster, retry_window_s=60).run(COMMAND)


def test_dashboard_url_is_chosen_as_by_ray_job_submit() -> None:
    server = {"RAY_API_SERVER_ADDRESS": "https://server"}
    url = {"RAY_ADDRESS": "http://head:8265"}

    assert dashboard_url("http://flag", server | url) == "http://flag"
    assert dashboard_url(None, server | url) == "https://server"
    assert dashboard_url(None, url) == "http://head:8265"
    assert dashboard_url(None, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "http://127.0.0.1:8265"


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://head:10001", "os://x", "auto"])
def test_dashboard_address_without_url_is_an_error(address: str) -> None:
    with pytest.raises(ConfigError, match="--address: expected the URL of the cluster's dashboard"):
        dashboard_url(address, {})
    with pytest.raises(ConfigError, match="RAY_API_SERVER_ADDRESS: expected the URL"):
        dashboard_url(None, {"RAY_API_SERVER_ADDRESS": address})


def test_token_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_token = tmp_path / "none"
    # What the code sets must not outlive the test: a mode it leaves makes clusters of later tests
    # refuse their own process.
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    for name in (
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_API_SERVER_ADDRESS",
        "RAY_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    made = open_runner(SubmitConfig(), "x", RunLog(), no_token)
    assert isinstance(made, RayJobs)
    assert made.env["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert (made.address, made.working_dir, "RAY_AUTH_MODE" in os.environ) == (
        "http://127.0.0.1:8265",
        ROOT,
        False,
    )
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    made = open_runner(SubmitConfig(working_dir=""), "x", RunLog(), no_token)
    assert isinstance(made, RayJobs)
    assert (made.address, made.working_dir, os.environ["RAY_AUTH_MODE"]) == (
        "http://head:8265",
        None,
        "token",
    )
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(ConfigError, match="--working-dir: /nowhere is not a folder"):
        open_runner(SubmitConfig(working_dir="/nowhere"), "x", RunLog(), no_token)
    monkeypatch.delenv("RAY_AUTH_MODE")
