"""console.py: the list of subcommands, the version, and words that are no subcommand."""

import pytest

from actors.protocol.version import VERSION
from grok_batch.commands import SUBCOMMANDS
from grok_batch.console import main
from jobs.cli.exit_codes import ExitCode


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_subcommand(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.OK
    text = capsys.readouterr().out
    for subcommand in SUBCOMMANDS:
        assert f"  {subcommand.name}" in text
        assert subcommand.purpose in text
    assert max(len(line) for line in text.splitlines()) <= 90


def test_version_is_the_version_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"grok-batch {VERSION}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("scor", "did you mean 'score'?"),
        ("verify_checkpoint", "did you mean 'verify-checkpoint'?"),
        ("frobnicate", "there are demo, score, "),
        ("\x1b[2J", r"'\x1b[2J' is no subcommand"),
    ],
)
def test_unknown_subcommand_gets_a_hint(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == ExitCode.BAD_ARGUMENTS
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert hint in message


def test_flags_go_to_the_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--max-token", "8"]) == ExitCode.BAD_ARGUMENTS
    assert "did you mean --max-tokens" in capsys.readouterr().err
