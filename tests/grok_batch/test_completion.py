"""completion.py: what bash, zsh and fish complete with the printed scripts."""

import argparse
import contextlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grok_batch.commands import SUBCOMMANDS, Subcommand
from grok_batch.completion import SHELLS, console_parser, main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import build_parser

# prints what Tab offers after the words of the command line
BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_grok_batch grok-batch "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        script = io.StringIO()
        with contextlib.redirect_stdout(script):
            assert main([shell]) == ExitCode.OK
        (folder / shell).write_text(script.getvalue())
    return folder


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [action] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda subcommand: subcommand.name)
def test_completion_has_the_flags_of_the_parser(subcommand: Subcommand) -> None:
    completed = set(subparsers(console_parser())[subcommand.name]._option_string_actions)
    parser = build_parser(subcommand.config_class(), "x", "")
    hidden = {"--print_shtab"}
    assert completed == set(parser._option_string_actions) - hidden


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sc"], {"score"}),
        (["score", "--max-t"], {"--max-tokens"}),
        (["score", "--dtype", ""], {"bfloat16", "float32"}),
        (["score", "--task", "per"], {"perplexity"}),
        (["score", "--dry-run", "t"], {"true"}),
        (["score", "-i", "pro"], {"prompts.parquet"}),
        (["score", "-C", "j"], {"job.yaml"}),
        (["evaluate", "re"], {"report"}),
        (["show", "ru"], {"runs"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes_words(
    words: list[str], offered: set[str], scripts: Path, tmp_path: Path
) -> None:
    for name in ("prompts.parquet", "job.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", scripts / "bash", "grok-batch", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [("grok-batch sc", "score"), ("grok-batch score --dtype b", "bfloat16")],
)
def test_fish_completes_words(words: str, offered: str, scripts: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    program = f"source {scripts / 'fish'}; complete -C '{words}'"
    done = subprocess.run(["fish", "-c", program], capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [offered]


@pytest.mark.slow
def test_zsh_finds_the_script(scripts: Path, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    shutil.copy(scripts / "zsh", tmp_path / "_grok-batch")
    program = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -D"
    done = subprocess.run(
        ["zsh", "-f", "-c", f"{program}; print $_comps[grok-batch]; autoload +X _grok-batch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "_grok-batch\n"), done.stderr


def test_unknown_shell_names_the_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tcsh"]) == ExitCode.BAD_ARGUMENTS
    assert "one of bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.slow
def test_help_and_completion_start_neither_ray_nor_jax() -> None:
    program = (
        "import sys; from grok_batch.console import main; "
        "main(['--help']); main(['completion', 'bash']); "
        "heavy = {'ray', 'jax', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
