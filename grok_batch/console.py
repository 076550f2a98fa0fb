"""The console command `grok-batch`: finds the subcommand, explains an unknown one, prints help.

    grok-batch                       the subcommands
    grok-batch score --help          the flags of one
    grok-batch --version

Each subcommand is the `main` of a module of `jobs`.
"""

import sys
from collections.abc import Sequence

from actors.protocol.plain_text import quoted
from actors.protocol.similar_names import suggestion
from grok_batch import __version__
from grok_batch.commands import SUBCOMMANDS
from jobs.cli.command import run_main
from jobs.cli.exit_codes import ExitCode

PROGRAM = "grok-batch"
HELP_FLAGS = ("-h", "--help", "help")
NAME_WIDTH = max(len(subcommand.name) for subcommand in SUBCOMMANDS)


def main(arguments: Sequence[str]) -> int:
    """Runs the subcommand of a command line and returns its exit code."""
    if not arguments or arguments[0] in HELP_FLAGS:
        print(help_text())
        return ExitCode.OK
    if arguments[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return ExitCode.OK

    name = arguments[0]
    for subcommand in SUBCOMMANDS:
        if subcommand.name == name:
            return subcommand.run(PROGRAM, arguments[1:])
    print(f"error: {unknown_subcommand(name)}", file=sys.stderr)
    return ExitCode.BAD_ARGUMENTS


def help_text() -> str:
    """Returns the list of subcommands."""
    lines = [
        f"usage: {PROGRAM} SUBCOMMAND [-C FILE] [--flag VALUE …]",
        "",
        "Batch inference for Grok-1 on Ray: prompts in as Parquet, completions and log-probs out.",
        "",
        "subcommands:",
    ]
    lines += [f"  {command.name:<{NAME_WIDTH}}  {command.purpose}" for command in SUBCOMMANDS]
    lines += [
        "",
        f"{PROGRAM} SUBCOMMAND --help lists the flags of one. First steps: {PROGRAM} demo",
    ]
    return "\n".join(lines)


def unknown_subcommand(name: str) -> str:
    """Returns the message about a word that is no subcommand."""
    names = [subcommand.name for subcommand in SUBCOMMANDS]
    return f"{quoted(name)} is no subcommand of {PROGRAM}{suggestion(name, names)}"


def run() -> None:
    """Runs the command line of this process: the entry point of the installed script."""
    run_main(main)
