"""One attempt of a command, as a Ray job or as a process of this machine.

A Ray job is identified by its submission id, NAME-NUMBER. A submitter that uses the same name joins
the job that still runs, so that a submitter may be killed and started again while the job goes on.
"""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join as shell_words
from typing import Any, Protocol, TypeVar

import aiohttp

from jobs.cli.exit_codes import LIMIT_FILE, ExitCode, has_limit_note
from jobs.cluster.authentication import TOKEN_FILE, token_is_configured
from jobs.submission.config import SubmitConfig
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
URL_SCHEMES = ("http://", "https://")
POLL_S = 2.0
MESSAGE_CHARS = 300
LOG_END_CHARS = 20_000  # with the message of a limit, and what evaluations print behind it
# Ray kills a job 3 s after `ray job stop` by default. The main job waits up to 20 s for batches in
# flight, then it commits and writes its report.
STOP_VARIABLES = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
# Exceptions of Ray's client when the cluster does not answer.
UNREACHABLE = (ConnectionError, RuntimeError, OSError, aiohttp.ClientError)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended."""

    code: int | None  # None: unknown, the cluster or the process around the command is gone
    # On request, or by a limit of time or money: no reason for another attempt.
    stopped: bool = False


class Runner(Protocol):
    """Runs a command once."""

    def run(self, command: Sequence[str]) -> AttemptResult:
        """Runs the command to its end; its output goes to standard output."""


class ChildProcess:
    """Runs a command as a process of this machine."""

    def run(self, command: Sequence[str]) -> AttemptResult:
        """Runs the command; a signal to this process is forwarded, and the command is waited for.

        Raises:
            ConfigError: the command cannot be started.
        """
        with tempfile.TemporaryDirectory(prefix="grok-batch-") as folder:
            note = Path(folder, "limit")
            child = _start(command, os.environ | {LIMIT_FILE: str(note)})
            try:
                code = _exit_code(child.wait())
            except KeyboardInterrupt:
                child.send_signal(signal.SIGTERM)
                return AttemptResult(_exit_code(child.wait()), stopped=True)
            return AttemptResult(code, stopped=note.exists())


def _start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a command.

    Raises:
        ConfigError: the command cannot be started.
    """
    try:
        return subprocess.Popen(command, env=environment)
    except OSError as error:
        raise ConfigError(
            f"cannot start {command[0]}: {error.strerror}; name a program that is on the PATH"
        ) from error


@dataclass
class RayJobs:
    """Runs a command as a job on a Ray cluster."""

    address: str  # of the dashboard, http://host:8265
    name: str
    working_dir: Path | None  # is uploaded with the job; None: the nodes have the code
    retry_window_s: float  # how long the cluster may be unreachable
    log: RunLog
    env: Mapping[str, str] = field(default_factory=dict)
    client: Callable[[str], Any] | None = None  # default: Ray's JobSubmissionClient
    poll_s: float = POLL_S
    detach: bool = False  # a signal ends this process only
    _number: int = 0  # of the last job of this name
    _printed_chars: int = 0  # of its log
    _log_end: str = ""  # the last characters of its log

    def run(self, command: Sequence[str]) -> AttemptResult:
        """Joins the running job of this name, or submits a new one, and follows it to its end.

        Raises:
            ConfigError: the cluster rejects the token, or runs another command under this name.
        """
        entrypoint = shell_words(command)
        self._printed_chars = 0
        self._log_end = ""
        try:
            job = self._with_retries(self._find_running)
            if job is None:
                job = self._with_retries(lambda: self._submit(entrypoint))
                self.log.event("submitted", f"job {job} is submitted to {self.address}", job=job)
            else:
                self._check_entrypoint(job, entrypoint)
                self.log.event("joined", f"job {job} runs already: its output follows", job=job)
            return self._follow_or_stop(job)
        except _JobLostError as error:
            self.log.event("job_lost", str(error), level="warning")
            return AttemptResult(None)

    def _connect(self) -> Any:
        if self.client is not None:
            return self.client(self.address)
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.WARNING)  # it logs every ignore file it reads
        return JobSubmissionClient(self.address)

    def _find_running(self) -> str | None:
        """Returns the id of the last job of this name unless it has ended; stores its number."""
        jobs: dict[int, Any] = {}
        for job in self._connect().list_jobs():
            match = re.fullmatch(rf"{re.escape(self.name)}-(\d+)", job.submission_id or "")
            if match:
                jobs[int(match[1])] = job

        self._number = max([self._number, *jobs])
        last = jobs.get(self._number)
        if last is None or last.status.is_terminal():
            return None
        return str(last.submission_id)

    def _submit(self, entrypoint: str) -> str:
        runtime_env: dict[str, Any] = {"env_vars": dict(self.env)}
        if self.working_dir is not None:
            runtime_env["working_dir"] = str(self.working_dir)

        job = f"{self.name}-{self._number + 1}"
        try:
            self._connect().submit_job(
                entrypoint=entrypoint, submission_id=job, runtime_env=runtime_env
            )
        except RuntimeError as error:
            # The answer to an earlier request was lost; the job exists.
            if "already exists" not in str(error):
                raise
        self._number += 1
        return job

    def _check_entrypoint(self, job: str, entrypoint: str) -> None:
        running = self._job_info(job).entrypoint
        if running != entrypoint:
            raise ConfigError(
                f"--name: job {job} runs another command ({running}); wait for it, stop it, or "
                "choose another name"
            )

    def _job_info(self, job: str) -> Any:
        return self._with_retries(lambda: self._connect().get_job_info(job))

    def _follow_or_stop(self, job: str) -> AttemptResult:
        try:
            return self._follow(job)
        except KeyboardInterrupt:
            if self.detach:
                raise
        self.log.event(
            "stopping",
            f"job {job} is asked to stop: it commits what is complete; a second signal ends the "
            "wait",
            job=job,
        )
        self._with_retries(lambda: self._connect().stop_job(job))  # its driver gets SIGTERM
        return AttemptResult(self._follow(job).code, stopped=True)

    def _follow(self, job: str) -> AttemptResult:
        while True:
            asyncio.run(self._print_log(job))
            info = self._job_info(job)
            if info.status.is_terminal():
                return _job_result(info, self._log_end)
            time.sleep(self.poll_s)

    async def _print_log(self, job: str) -> None:
        """Prints the job's log as it grows, from where the last connection ended."""
        position = 0
        try:
            async for text in self._connect().tail_job_logs(job):
                already_printed = max(0, self._printed_chars - position)
                added = text[already_printed:]
                sys.stdout.write(added)
                sys.stdout.flush()
                self._log_end = (self._log_end + added)[-LOG_END_CHARS:]
                position += len(text)
                self._printed_chars = max(self._printed_chars, position)
        except UNREACHABLE:
            return  # the caller requests the job's status next, with retries

    def _with_retries(self, request: Callable[[], Answer]) -> Answer:
        """Returns the answer to a request; repeats it while the cluster is unreachable.

        Raises:
            ConfigError: the cluster rejects the token.
            _JobLostError: the retry window is over, or the cluster does not have the job.
        """
        deadline_s = time.monotonic() + self.retry_window_s
        while True:
            try:
                return request()
            except Exception as error:
                message = " ".join(str(error).split())[:MESSAGE_CHARS]
                if _is_rejected(error):
                    raise ConfigError(
                        f"the cluster at {self.address} refuses the token ({message}); set "
                        "RAY_AUTH_TOKEN"
                    ) from error
                if not isinstance(error, UNREACHABLE):
                    raise
                if "status code 404" in message:
                    raise _JobLostError(
                        f"the cluster at {self.address} has lost the job: it was started anew"
                    ) from error
                if time.monotonic() > deadline_s:
                    raise _JobLostError(
                        f"the cluster at {self.address} has not answered for "
                        f"{self.retry_window_s:g} s ({message})"
                    ) from error
            time.sleep(self.poll_s)


class _JobLostError(Exception):
    """The job or the cluster is gone."""


def open_runner(
    config: SubmitConfig, name: str, log: RunLog, token_file: Path = TOKEN_FILE
) -> Runner:
    """Returns the runner that a configuration selects.

    Ray reads the kind of authentication once, when it is imported: this sets RAY_AUTH_MODE before
    that, where a token is configured.

    Raises:
        ConfigError: --working-dir is not a folder, or --address not a URL.
    """
    if config.here:
        return ChildProcess()

    if token_is_configured(os.environ, token_file):
        os.environ.setdefault("RAY_AUTH_MODE", "token")

    folder = None
    if config.working_dir:
        folder = Path(config.working_dir)
        if not folder.is_dir():
            raise ConfigError(f"--working-dir: {folder} is not a folder")

    return RayJobs(
        dashboard_url(config.address, os.environ),
        name,
        folder,
        config.patience_s,
        log,
        env=STOP_VARIABLES | _commit_variable(folder),
        detach=config.detach,
    )


def dashboard_url(address: str | None, environment: Mapping[str, str]) -> str:
    """Returns the URL of the cluster's dashboard: --address, or as for `ray job submit`.

    Raises:
        ConfigError: it is not an http:// or https:// URL.
    """
    source = "--address"
    if not address:
        source = "RAY_API_SERVER_ADDRESS"
        address = environment.get(source)
    if not address and environment.get("RAY_ADDRESS", "").startswith(URL_SCHEMES):
        source = "RAY_ADDRESS"
        address = environment[source]
    if not address:
        return DEFAULT_ADDRESS

    # Anything else than a URL starts a driver, or names a Python module that Ray imports.
    if not address.startswith(URL_SCHEMES):
        raise ConfigError(
            f"{source}: expected the URL of the cluster's dashboard, e.g. http://HEAD:8265, got "
            f"{address!r}"
        )
    return address


def _commit_variable(folder: Path | None) -> dict[str, str]:
    """Returns the variable with the commit for run.json; .git is not uploaded with the job."""
    if folder is None or not (folder / ".git").exists():
        return {}
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        return {}
    return {"GROK_BATCH_COMMIT": process.stdout.strip()}


def _is_rejected(error: Exception) -> bool:
    """Returns whether the cluster answered that the token is missing or wrong."""
    # Compared by name, because Ray is imported late.
    if type(error).__name__ == "AuthenticationError":
        return True
    if not isinstance(error, UNREACHABLE):
        return False
    return re.search(r"status code 40[13]\b|40[13] Client Error", str(error)) is not None


def _exit_code(return_code: int) -> int | None:
    """Returns the exit code of a process; None if a signal killed it.

    Args:
        return_code: as `subprocess` reports it, negative for a signal.
    """
    if return_code < 0:
        return None
    return return_code


def _job_result(info: Any, log_end: str) -> AttemptResult:
    """Returns the result of a Ray job that has ended.

    Args:
        info: of the job, by Ray.
        log_end: the last characters of its log.
    """
    status = str(info.status.value)
    if status == "SUCCEEDED":
        return AttemptResult(0)

    code = None
    if info.driver_exit_code is not None:
        code = _exit_code(int(info.driver_exit_code))
    is_limited = code == ExitCode.INTERRUPTED and has_limit_note(log_end)
    return AttemptResult(code, stopped=status == "STOPPED" or is_limited)
