"""Prints a script by which a shell completes subcommands, flags, choices and file names.

bash: `source <(grok-batch completion bash)` in ~/.bashrc. zsh: the output in a file `_grok-batch`
of a folder of $fpath. fish: the output in ~/.config/fish/completions/grok-batch.fish. The script
contains all names: the shell starts no Python while it completes.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import shtab

from grok_batch.commands import SUBCOMMANDS
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.flag_checks import flag_name
from jobs.cli.parser import flag, parse
from jobs.cli.positional import name_first_words
from pipeline.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class CompletionConfig:
    """Flags of `completion`."""

    shell: str | None = flag(
        None, "bash, zsh or fish; also the first word; required", choices=SHELLS
    )

    def __post_init__(self) -> None:
        if self.shell not in SHELLS:
            raise ConfigError(f"give the shell, one of {', '.join(SHELLS)}: completion bash")


def main(arguments: Sequence[str], *, program: str = "grok-batch completion") -> int:
    """Prints the script of a command line and returns the exit code."""
    return run_command(lambda: _print_script(arguments, program))


def _print_script(arguments: Sequence[str], program: str) -> int:
    config = parse(
        CompletionConfig,
        name_first_words(arguments, ["--shell"]),
        program=f"{program} SHELL",
        description=str(__doc__),
    )
    print(shtab.complete(console_parser(), str(config.shell)))
    return ExitCode.OK


def console_parser() -> argparse.ArgumentParser:
    """Returns the command line of `grok-batch` as one parser, for completion alone."""
    parser = argparse.ArgumentParser(prog="grok-batch")
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers()
    for subcommand in SUBCOMMANDS:
        subparser = subparsers.add_parser(subcommand.name, help=subcommand.purpose)
        config_class = subcommand.config_class()
        if subcommand.steps:
            subparser.add_argument("step", nargs="?", choices=subcommand.steps)
        fields = {field.name: field for field in dataclasses.fields(config_class)}
        for name in subcommand.first_words:
            _add_first_word(subparser, fields[name])
        _add_file(subparser, "-C", "--config", help="YAML file with flags")
        subparser.add_argument("--print-config", action="store_true", help="print the job file")
        hints = get_type_hints(config_class)
        for field in fields.values():
            _add_flag(subparser, field, hints[field.name])
    return parser


def _add_first_word(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]") -> None:
    if field.metadata["choices"]:
        parser.add_argument(field.name, nargs="?", choices=field.metadata["choices"])
    else:
        _add_file(parser, field.name, nargs="?")


def _add_flag(
    parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", hint: object
) -> None:
    names = [flag_name(field.name)]
    if field.metadata.get("short"):
        names.insert(0, field.metadata["short"])
    text = _first_clause(field.metadata["help"])
    choices = _choices(field, hint)
    if hint is bool:
        parser.add_argument(*names, help=text, nargs="?", choices=("true", "false"))
    elif choices:
        parser.add_argument(*names, help=text, choices=choices)
    elif str in (hint, *get_args(hint)):
        _add_file(parser, *names, help=text)
    else:
        parser.add_argument(*names, help=text)


def _add_file(parser: argparse.ArgumentParser, *names: str, **options: Any) -> None:
    argument = parser.add_argument(*names, **options)
    argument.complete = shtab.FILE  # type: ignore[attr-defined]  # the protocol of shtab


def _choices(field: "dataclasses.Field[Any]", hint: object) -> tuple[str, ...]:
    """Returns the values that a flag lists; empty if it takes others too."""
    if field.metadata.get("choices"):
        return tuple(field.metadata["choices"])
    if get_origin(hint) is Literal:
        return tuple(str(choice) for choice in get_args(hint))
    return ()


def _first_clause(text: str) -> str:
    """Returns the beginning of a help text: a shell has one line for it."""
    return text.split(";", maxsplit=1)[0].replace("%", "%%")
