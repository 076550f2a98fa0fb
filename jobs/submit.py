"""A command → a job on a Ray cluster that is tried again until it is done.

This ends with the command's own exit code.

    python jobs/submit.py --name nightly -- python jobs/score_dataset.py -C job.yaml

`ray job submit` sends one job once, and ends with 1 whatever the job's exit code was. This adds
what a schedule needs: the exit code; another try when the job was interrupted or its cluster was
lost, which continues the run, because the same command does; and joining the job that still runs,
when the submitter itself is started anew.

Exit codes: the command's; 75 when it was interrupted or lost on the last try too; 2 when nothing
could be submitted.
"""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import join as shell_words
from typing import Literal

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.errors import GrokBatchError
from jobs.cli.parser import flag, parse
from jobs.run.cluster import TOKEN_FILE
from jobs.submission.attempts import Attempts, ChildProcess, RayJobs
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog

ROOT = Path(__file__).resolve().parent.parent
BAD_ARGUMENTS, INTERRUPTED = 2, 75
# done, or would end the same way again; 75, 1 and whatever a signal leaves may not
FINAL = (0, 2, 3, 4, 5)
LONGEST_PAUSE_S = 900.0
DESCRIPTION = (
    "Submits a command to a Ray cluster, waits for it, and tries again when it was interrupted or "
    "the cluster was lost. "
    "The command stands after --; {night} in it, or in --name, becomes a date: see --night-begins."
)


@dataclass(frozen=True)
class SubmitConfig:
    """One call of jobs/submit.py.

    Raises:
        ConfigError: a flag is out of range.
    """

    name: str | None = flag(
        None, "begins the submission ids, NAME-1, NAME-2, …; default: made of the command"
    )
    address: str | None = flag(
        None,
        "dashboard of the cluster; default: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265",
    )
    working_dir: str = flag(
        str(ROOT), "folder that travels with the job; empty: the nodes have the code"
    )
    here: bool = flag(
        False, "run the command as a process of this machine, without a cluster's job server"
    )
    attempts: int = flag(5, "tries in all")
    pause_s: float = flag(30.0, "pause before the second try; doubles with each, up to 15 minutes")
    patience_s: float = flag(
        600.0, "for how long the cluster may not answer before a try counts as lost"
    )
    accept: str = flag(
        "0",
        "exit codes, separated by commas, that become 0: 0,3 for a schedule that knows only good "
        "and bad",
    )
    night_begins: str = flag(
        "00:00",
        "HH:MM, UTC: {night} is the date on which the present night began, also for a try after midnight",
    )
    detach: bool = flag(
        False,
        "a signal to this program leaves the job running; otherwise the job is asked to stop, and "
        "waited for",
    )
    log_format: Literal["text", "json"] = flag(
        "text", "text or json: how this program tells what it does, on standard error"
    )

    def __post_init__(self) -> None:
        for name, low in (("attempts", 1), ("pause_s", 0), ("patience_s", 0)):
            if getattr(self, name) < low:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected at least {low}, got "
                    f"{getattr(self, name)}"
                )
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.night_begins):
            raise ConfigError(
                f"--night-begins: expected HH:MM, e.g. 02:00, got {self.night_begins!r}"
            )
        if not re.fullmatch(r"\d+(,\d+)*", self.accept):
            raise ConfigError(
                f"--accept: expected exit codes separated by commas, e.g. 0,3, got {self.accept!r}"
            )
        if self.name is not None and not re.fullmatch(r"[\w.{}-]+", self.name):
            raise ConfigError(
                f"--name: expected letters, digits, dots and dashes, got {self.name!r}"
            )

    def night(self, now: datetime) -> str:
        """Returns the date on which the night that `now` belongs to began."""
        hours, minutes = map(int, self.night_begins.split(":"))
        return (now - timedelta(hours=hours, minutes=minutes)).date().isoformat()

    def accepted(self, code: int) -> int:
        """Returns the exit code that a command's stands for."""
        return 0 if str(code) in self.accept.split(",") else code


def main(arguments: Sequence[str]) -> int:
    """Submits the command of a command line, and returns the exit code."""
    log = RunLog()
    try:
        flags, command = _split(arguments)
        config = parse(SubmitConfig, flags, program="submit.py", description=DESCRIPTION)
        if not command:
            raise ConfigError(
                "the command is missing: give it after --, e.g. submit.py -- python "
                "jobs/score_dataset.py -C job.yaml"
            )
        night = config.night(datetime.now(UTC))
        command = [word.replace("{night}", night) for word in command]
        name = (config.name or default_name(command)).replace("{night}", night)
        log = RunLog(config.log_format, run=name)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return config.accepted(persist(_attempts(config, name, log), command, config, log))
    except GrokBatchError as error:
        return log.failed(error, BAD_ARGUMENTS)
    except KeyboardInterrupt:
        log.event(
            "interrupted",
            "interrupted: the job goes on; the same command joins it, `ray job stop` ends it",
            level="warning",
        )
        return INTERRUPTED


def persist(
    attempts: Attempts,
    command: Sequence[str],
    config: SubmitConfig,
    log: RunLog,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Tries the command until it is done, or cannot be done, or was tried often enough.

    Returns its exit code.
    """
    pause_s = config.pause_s
    for number in range(1, config.attempts + 1):
        ended = attempts.run(command)
        code = INTERRUPTED if ended.code is None else ended.code
        last = code in FINAL or ended.stopped or number == config.attempts
        shown = "lost" if ended.code is None else f"exit code {code}"
        again = "" if last else f"; the same command again in {pause_s:g} s"
        level: Literal["info", "warning"] = "info" if code == 0 else "warning"
        told = {
            "attempt": number,
            "attempts": config.attempts,
            "exit_code": ended.code,
            "again": not last,
        }
        log.event(
            "attempt_ended",
            f"try {number} of {config.attempts}: {shown}{again}",
            level=level,
            **told,
        )
        if last:
            break
        sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    return code


def default_name(command: Sequence[str]) -> str:
    """Returns a name for a command: its script's, and eight digits of all of it."""
    script = next(
        (Path(word).stem for word in command if word.endswith(".py")), Path(command[0]).stem
    )
    digest = hashlib.sha256(shell_words(command).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]", "-", f"{script}-{digest}")


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _attempts(config: SubmitConfig, name: str, log: RunLog) -> Attempts:
    if config.here:
        return ChildProcess()
    token = (
        "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or TOKEN_FILE.exists()
    )
    if token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, when Ray is imported
    address = config.address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    folder = Path(config.working_dir) if config.working_dir else None
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--working-dir: {folder} is not a folder")
    return RayJobs(
        address, name, folder, config.patience_s, log, _commit(folder), detach=config.detach
    )


def _commit(folder: Path | None) -> dict[str, str]:
    """Returns the variable by which run.json knows the commit: the history does not travel with the job."""
    if folder is None or not (folder / ".git").exists():
        return {}
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {"GROK_BATCH_COMMIT": done.stdout.strip()} if done.returncode == 0 else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
