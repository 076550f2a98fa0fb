from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.submission.config import SubmitConfig, default_name, split_command_line
from pipeline.errors import ConfigError

COMMAND = ["python", "jobs/score_dataset.py", "-C", "job.yaml"]
AFTER_MIDNIGHT = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def test_night_is_named_by_its_start_date() -> None:
    config = SubmitConfig(night_begins="22:30")
    assert config.night(datetime(2026, 11, 24, 22, 31, tzinfo=UTC)) == "2026-11-24"
    assert config.night(datetime(2026, 11, 25, 3, 0, tzinfo=UTC)) == "2026-11-24"
    assert config.night(datetime(2026, 11, 25, 22, 29, tzinfo=UTC)) == "2026-11-24"
    assert SubmitConfig().night(datetime(2026, 11, 25, 0, 0, tzinfo=UTC)) == "2026-11-25"


def test_accepted_exit_codes_become_0() -> None:
    config = SubmitConfig(accept="0,3,75")
    assert [config.accepted(code) for code in (0, 3, 75)] == [0, 0, 0]
    assert [config.accepted(code) for code in (5, 7, 30)] == [5, 7, 30]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"attempts": 0}, "--attempts: expected at least 1"),
        ({"pause_s": -1.0}, "--pause-s"),
        ({"night_begins": "24:00"}, "--night-begins: expected HH:MM"),
        ({"accept": "0 3"}, "--accept"),
        ({"name": "a b"}, "--name"),
    ],
)
def test_invalid_flags_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SubmitConfig(**flags)


def test_submission_name_derives_from_the_command() -> None:
    assert default_name(COMMAND).startswith("score_dataset-")
    assert default_name(COMMAND) == default_name(list(COMMAND))
    assert default_name(COMMAND) != default_name([*COMMAND, "--seed", "1"])
    assert default_name(["/bin/echo hello", "x"]).startswith("echo-hello-")


def test_resolve_command_replaces_night_in_every_word() -> None:
    config = SubmitConfig(night_begins="22:30")
    command = ["run", "-i", "in/{night}", "-o", "{night}/out-{night}"]

    resolved = config.resolve_command(command, AFTER_MIDNIGHT)

    assert resolved == ["run", "-i", "in/2026-11-24", "-o", "2026-11-24/out-2026-11-24"]


def test_resolve_command_refuses_an_empty_command() -> None:
    with pytest.raises(ConfigError, match="the command is missing: give it after --"):
        SubmitConfig().resolve_command([], AFTER_MIDNIGHT)


def test_resolve_name_prefers_the_flag_and_replaces_night() -> None:
    named = SubmitConfig(name="nightly-{night}")

    assert named.resolve_name(COMMAND, AFTER_MIDNIGHT) == "nightly-2026-11-25"
    assert SubmitConfig().resolve_name(COMMAND, AFTER_MIDNIGHT) == default_name(COMMAND)


def test_split_command_line_separates_at_the_first_dashes() -> None:
    assert split_command_line(["--attempts", "2", "--", "sh", "--", "x"]) == (
        ["--attempts", "2"],
        ["sh", "--", "x"],
    )
    assert split_command_line(["--help"]) == (["--help"], [])
