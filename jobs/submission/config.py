"""Flags of jobs/submit.py."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shlex import join as shell_words
from typing import Literal

from actors.protocol.plain_text import quoted
from jobs.cli.flag_checks import check_range
from jobs.cli.parser import flag
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = str(ROOT) if (ROOT / "pyproject.toml").exists() else ""  # an installed package has none
NIGHT = "{night}"


@dataclass(frozen=True)
class SubmitConfig:
    """Flags of jobs/submit.py.

    Raises:
        ConfigError: a flag is out of range.
    """

    name: str | None = flag(
        None,
        "prefix of the submission ids, NAME-1, NAME-2, …; default: derived from the command",
    )
    address: str | None = flag(
        None,
        "URL of the cluster's dashboard; default: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS if it is "
        "a URL, else http://127.0.0.1:8265",
    )
    working_dir: str = flag(
        CHECKOUT,
        "folder that is uploaded with the job; empty, as where the project is installed as a "
        "package: the nodes have the code",
    )
    here: bool = flag(
        False, "run the command as a process of this machine, without a cluster's job server"
    )
    attempts: int = flag(5, "attempts in all")
    pause_s: float = flag(
        30.0, "pause before the second attempt; doubles with each, up to 15 minutes"
    )
    patience_s: float = flag(
        600.0, "how long the cluster may be unreachable before an attempt counts as lost"
    )
    accept: str = flag(
        "0",
        "exit codes, separated by commas, that become 0; 0,3 for a scheduler that distinguishes "
        "only success and failure",
    )
    night_begins: str = flag(
        "00:00",
        "HH:MM, UTC: {night} is the date on which the current night began, also for an attempt "
        "after midnight",
    )
    detach: bool = flag(
        False,
        "a signal to this program leaves the job running; by default the job is stopped, and this "
        "program waits for it",
    )
    log_format: Literal["text", "json"] = flag(
        "text", "text or json: format of this program's events on standard error"
    )

    def __post_init__(self) -> None:
        check_range("attempts", self.attempts, 1)
        check_range("pause_s", self.pause_s, 0)
        check_range("patience_s", self.patience_s, 0)

        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.night_begins):
            raise ConfigError(
                f"--night-begins: expected HH:MM, e.g. 02:00, got {quoted(self.night_begins)}"
            )
        if not re.fullmatch(r"\d+(,\d+)*", self.accept):
            raise ConfigError(
                "--accept: expected exit codes separated by commas, e.g. 0,3, got "
                f"{quoted(self.accept)}"
            )
        if self.name is not None and not re.fullmatch(r"[\w.{}-]+", self.name):
            raise ConfigError(
                f"--name: expected letters, digits, dots and dashes, got {quoted(self.name)}"
            )

    def night(self, now: datetime) -> str:
        """Returns the date on which the night of `now` began."""
        hours, minutes = map(int, self.night_begins.split(":"))
        start = now - timedelta(hours=hours, minutes=minutes)
        return start.date().isoformat()

    def resolve_command(self, command: Sequence[str], now: datetime) -> list[str]:
        """Returns the command with the date in place of {night}.

        Raises:
            ConfigError: there is no command.
        """
        if not command:
            raise ConfigError(
                "the command is missing: give it after --, e.g. submit.py -- python "
                "jobs/score_dataset.py -C job.yaml"
            )
        night = self.night(now)
        return [word.replace(NIGHT, night) for word in command]

    def resolve_name(self, command: Sequence[str], now: datetime) -> str:
        """Returns the prefix of the submission ids with the date in place of {night}."""
        name = self.name or default_name(command)
        return name.replace(NIGHT, self.night(now))

    def accepted(self, code: int) -> int:
        """Returns 0 for an exit code of --accept, any other code unchanged."""
        if str(code) in self.accept.split(","):
            return 0
        return code


def split_command_line(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the flags before -- and the command after it."""
    words = list(arguments)
    if "--" not in words:
        return words, []
    separator = words.index("--")
    return words[:separator], words[separator + 1 :]


def default_name(command: Sequence[str]) -> str:
    """Returns a name for a command: its script, and eight digits of a digest of the command."""
    scripts = (word for word in command if word.endswith(".py"))
    script = Path(next(scripts, command[0])).stem
    digest = hashlib.sha256(shell_words(command).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]", "-", f"{script}-{digest}")
