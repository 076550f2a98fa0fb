"""commands.py: each subcommand is a command that exists, under its own name."""

import importlib
import inspect

import pytest

from grok_batch.commands import SUBCOMMANDS, Subcommand


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda subcommand: subcommand.name)
def test_module_of_a_subcommand_has_its_main(subcommand: Subcommand) -> None:
    module = importlib.import_module(subcommand.module)
    parameters = inspect.signature(module.main).parameters
    assert next(iter(parameters)) == "arguments"
    assert parameters["program"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda subcommand: subcommand.name)
def test_help_names_the_subcommand(
    subcommand: Subcommand, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        subcommand.run("grok-batch", ["--help"])
    assert ended.value.code == 0
    usage = capsys.readouterr().out.splitlines()[0]
    assert usage.startswith(f"usage: grok-batch {subcommand.name} ")


def test_names_of_subcommands_are_distinct() -> None:
    names = [subcommand.name for subcommand in SUBCOMMANDS]
    assert sorted(set(names)) == sorted(names)
