"""One try of a command, as a Ray job or as a process of this machine → how it ended.

jobs/submit.py decides whether to try again.

A Ray job is known by its submission id, NAME-NUMBER. Whoever asks for the same name again joins the
job that still runs, so that a submitter may be killed and started anew while the job goes on. Knows
nothing of what commands do.
"""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join as shell_words
from typing import Any, Protocol

import aiohttp

from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

POLL_S = 2.0
# how Ray's client says that there is no answer
UNREACHABLE = (ConnectionError, RuntimeError, OSError, aiohttp.ClientError)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a try ended."""

    # of the command; None: nobody knows, the cluster or the process around it is gone
    code: int | None
    stopped: bool = False  # somebody asked it to stop: that is no reason to begin again


class Attempts(Protocol):
    """Something that can try a command."""

    def run(self, command: Sequence[str]) -> Ended:
        """Runs the command to its end; what it says goes to standard output."""


class ChildProcess:
    """Tries a command as a process of this machine."""

    def run(self, command: Sequence[str]) -> Ended:
        """Runs the command.

        A signal to this process is handed on, and the command is waited for.
        """
        try:
            child = subprocess.Popen(command)
        except OSError as error:
            raise ConfigError(
                f"cannot start {command[0]}: {error.strerror}; name a program that is on the PATH"
            ) from error
        try:
            return _ended(child.wait())
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            return Ended(_ended(child.wait()).code, stopped=True)


@dataclass
class RayJobs:
    """Tries a command as a job on a Ray cluster."""

    address: str  # of the dashboard, http://host:8265
    name: str
    working_dir: Path | None  # travels with the job; None: the nodes have the code
    patience_s: float  # for how long the cluster may not answer
    log: RunLog
    env: Mapping[str, str] = field(default_factory=dict)
    # Ray's JobSubmissionClient, unless a test brings another one
    client: Callable[[str], Any] | None = None
    poll_s: float = POLL_S
    detach: bool = False  # a signal ends this process only
    _number: int = 0  # of the last job of this name
    _shown: int = 0  # characters of its log

    def run(self, command: Sequence[str]) -> Ended:
        """Joins the job of this name that still runs, or submits a new one.

        Returns when it has ended or is lost.

        Raises:
            ConfigError: the cluster refuses the token, or runs another command under this name.
        """
        entrypoint = shell_words(command)
        self._shown = 0
        try:
            running = self._patiently(self._running)
            if running is None:
                running = self._patiently(lambda: self._submit(entrypoint))
                self.log.event(
                    "submitted", f"job {running} is submitted to {self.address}", job=running
                )
            else:
                self._check_same(running, entrypoint)
                self.log.event(
                    "joined", f"job {running} runs already: its output follows", job=running
                )
            return self._follow_or_stop(running)
        except _LostError as error:
            self.log.event("job_lost", str(error), level="warning")
            return Ended(None)

    def _connected(self) -> Any:
        if self.client is not None:
            return self.client(self.address)
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every ignore file it reads
        return JobSubmissionClient(self.address)

    def _running(self) -> str | None:
        """Returns the id of the last job of this name if it has not ended, and remembers its number."""
        found = {}
        for job in self._connected().list_jobs():
            known = re.fullmatch(rf"{re.escape(self.name)}-(\d+)", job.submission_id or "")
            if known:
                found[int(known[1])] = job
        self._number = max([self._number, *found])
        last = found.get(self._number)
        return last.submission_id if last is not None and not last.status.is_terminal() else None

    def _submit(self, entrypoint: str) -> str:
        runtime_env: dict[str, Any] = {"env_vars": dict(self.env)}
        if self.working_dir is not None:
            runtime_env["working_dir"] = str(self.working_dir)
        name = f"{self.name}-{self._number + 1}"
        try:
            self._connected().submit_job(
                entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env
            )
        except RuntimeError as error:
            # an answer that was lost on the way: the job is there
            if "already exists" not in str(error):
                raise
        self._number += 1
        return name

    def _check_same(self, job: str, entrypoint: str) -> None:
        found = self._patiently(lambda: self._connected().get_job_info(job)).entrypoint
        if found != entrypoint:
            raise ConfigError(
                f"--name: job {job} runs another command ({found}); wait for it, stop it, or "
                "choose another name"
            )

    def _follow_or_stop(self, job: str) -> Ended:
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
        self._patiently(lambda: self._connected().stop_job(job))  # its driver gets SIGTERM
        return Ended(self._follow(job).code, stopped=True)

    def _follow(self, job: str) -> Ended:
        while True:
            asyncio.run(self._show_log(job))
            info = self._patiently(lambda: self._connected().get_job_info(job))
            if info.status.is_terminal():
                return _job_ended(info)
            time.sleep(self.poll_s)

    async def _show_log(self, job: str) -> None:
        """Prints the job's log as it grows, from where it broke off the last time."""
        seen = 0
        try:
            async for text in self._connected().tail_job_logs(job):
                sys.stdout.write(text[max(0, self._shown - seen) :])
                sys.stdout.flush()
                seen += len(text)
                self._shown = max(self._shown, seen)
        except UNREACHABLE:
            return  # whether the job is still there is asked next

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Returns what `ask` returns; asks again for as long as the cluster may be silent."""
        ends = time.monotonic() + self.patience_s
        while True:
            try:
                return ask()
            except Exception as error:
                said = " ".join(str(error).split())[:300]
                if _refused(error):
                    raise ConfigError(
                        f"the cluster at {self.address} refuses the token ({said}); set "
                        "RAY_AUTH_TOKEN"
                    ) from error
                if not isinstance(error, UNREACHABLE):
                    raise
                if "status code 404" in said:
                    raise _LostError(
                        f"the cluster at {self.address} has lost the job: it was started anew"
                    ) from error
                if time.monotonic() > ends:
                    silent = f"has not answered for {self.patience_s:g} s ({said})"
                    raise _LostError(f"the cluster at {self.address} {silent}") from error
            time.sleep(self.poll_s)


def _refused(error: Exception) -> bool:
    """Whether this is an answer, and it says that the token is missing or wrong."""
    # Ray's; by name, because Ray is imported late
    if type(error).__name__ == "AuthenticationError":
        return True
    return (
        isinstance(error, UNREACHABLE)
        and re.search(r"status code 40[13]\b|40[13] Client Error", str(error)) is not None
    )


class _LostError(Exception):
    """The job, or the cluster, is gone."""


def _ended(code: int) -> Ended:
    # killed by a signal: the command itself has said nothing
    return Ended(None if code < 0 else code)


def _job_ended(info: Any) -> Ended:
    status = str(info.status.value)
    if status == "SUCCEEDED":
        return Ended(0)
    code = info.driver_exit_code
    return Ended(None if code is None or code < 0 else int(code), stopped=status == "STOPPED")
