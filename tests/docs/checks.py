"""How each command of the documentation is checked: run, parsed, or named as external."""

import argparse
import dataclasses
import glob
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from grok_batch.commands import SUBCOMMANDS, Subcommand
from jobs.cli.flag_checks import flag_name
from jobs.cli.model_flags import ModelFlags
from jobs.cli.parser import parse
from jobs.cli.positional import name_first_words
from jobs.submission.config import split_command_line
from tests.docs.blocks import ROOT
from tests.docs.shell import PLACEHOLDER, Command

EXAMPLE = ROOT / "jobs" / "configs" / "complete.yaml"  # stands for a job file of the reader
TOP_FOLDERS = ("actors", "docs", "grok_batch", "infra", "jobs", "pipeline", "tests")


class Check(StrEnum):
    """How a command is checked."""

    RUN = "run, with replicas that compute by arithmetic"
    PARSED = "parsed by the parser of the command: its flags, choices and types"
    MAKE = "a target of the Makefile"
    PYTHON = "a module or script of this repository"
    EXTERNAL = "a program that is not ours: its paths in this repository exist"


# Programs that are not ours, with what a run needs.
EXTERNAL_PROGRAMS = {
    "aws": "an account of AWS",
    "base64": "the output of kubectl",
    "cp": "the folders of the target machine",
    "docker": "a container engine",
    "duckdb": "DuckDB: test_queries_of_the_documentation_run runs the query",
    "eval": "the output of terraform",
    "export": "nothing: it sets variables",
    "git": "a clone",
    "helm": "a Kubernetes cluster",
    "hf": "the Hugging Face hub",
    "install": "root on the target machine",
    "journalctl": "systemd",
    "kubectl": "a Kubernetes cluster",
    "ln": "the folders of the target machine",
    "ncu": "a GPU",
    "openssl": "nothing: it draws a token",
    "pip": "a new environment",
    "prometheus": "a Prometheus",
    "ray": "a Ray cluster",
    "release.sh": "a commit without changes: tests/infra run it",
    "systemctl": "systemd",
    "terraform": "an account of AWS",
    "useradd": "root on the target machine",
}
# Scripts without a subcommand, with the class of their flags.
SCRIPTS = {
    "jobs/benchmark.py": "jobs.benchmarks.engine_config:EngineBenchmarkConfig",
    "jobs/benchmark_checkpoint.py": "jobs.benchmarks.checkpoint:CheckpointBenchmarkConfig",
    "jobs/benchmark_driver.py": "jobs.benchmarks.driver_config:DriverBenchmarkConfig",
    "jobs/benchmark_pipeline.py": "jobs.benchmarks.pipeline_config:PipelineBenchmarkConfig",
    "jobs/evaluate_cot_shots.py": "jobs.evaluate_cot_shots:ShotsConfig",
}
# Scripts whose flags are not those of a dataclass.
OTHER_SCRIPTS = {
    "jobs/check_gpu.py": "argparse",
    "jobs/evaluate_lm_eval.py": "needs .venv-lm-eval",
    "jobs/make_demo.py": "no flags in the documentation",
}


@dataclass(frozen=True)
class Program:
    """A command of ours: the subcommand or script, and its arguments."""

    script: str
    subcommand: Subcommand | None
    arguments: tuple[str, ...]

    @property
    def is_help_or_name(self) -> bool:
        """Whether it prints help, or a sentence names it without arguments."""
        return not self.arguments or not {"--help", "--version"}.isdisjoint(self.arguments)


def our_program(words: Sequence[str]) -> Program | None:
    """Returns the program of ours that a command starts; None for other programs."""
    name = Path(words[0]).name
    if name == "grok-batch":
        for subcommand in SUBCOMMANDS:
            if subcommand.name == words[1]:
                return Program(_script(subcommand), subcommand, tuple(words[2:]))
        return Program(words[1], None, tuple(words[2:]))
    if not name.startswith("python") or not words[1].startswith("jobs/"):
        return None
    script = words[1]
    for subcommand in SUBCOMMANDS:
        if _script(subcommand) == script:
            return Program(script, subcommand, tuple(words[2:]))
    return Program(script, None, tuple(words[2:]))


def _script(subcommand: Subcommand) -> str:
    return f"{subcommand.module.replace('.', '/')}.py"


def check_command(command: Command, folder: Path) -> Check:
    """Checks a command that is not run.

    Args:
        command: of a page.
        folder: of the repository in which the page's reader is.

    Returns:
        How it was checked.

    Raises:
        AssertionError, GrokBatchError, SystemExit: the command is not valid.
    """
    words = [word for word in command.words if word != PLACEHOLDER]
    program = our_program(words)
    if program is not None:
        return _check_program(program)

    name = Path(words[0]).name
    check_paths(words, folder)
    if name == "make":
        return _check_make(words)
    if name.startswith("python"):
        return _check_python(words, folder)
    assert name in EXTERNAL_PROGRAMS, f"{command}: add {name} to tests/docs/checks.py"
    inner = inner_command(words)
    if inner:
        check_command(Command(tuple(inner)), folder)
    return Check.EXTERNAL


def inner_command(words: Sequence[str]) -> list[str]:
    """Returns the command that another one starts: after `--`, or from its `python` on."""
    if "--" in words:
        return list(words[words.index("--") + 1 :])
    if "python" in words:
        return list(words[words.index("python") :])
    return []


def _check_program(program: Program) -> Check:
    if program.is_help_or_name:
        assert program.subcommand is not None or (ROOT / program.script).is_file()
        return Check.PARSED
    if program.subcommand is not None:
        parse_subcommand(program.subcommand, program.arguments)
        return Check.PARSED
    if program.script in SCRIPTS:
        module, _, name = SCRIPTS[program.script].partition(":")
        config_class = getattr(importlib.import_module(module), name)
        parse(config_class, program.arguments, program=program.script, description="")
        return Check.PARSED
    assert program.script in OTHER_SCRIPTS, f"{program.script} is not known"
    assert (ROOT / program.script).is_file()
    source = (ROOT / program.script).read_text()
    if OTHER_SCRIPTS[program.script] == "argparse":
        parser: Callable[[], argparse.ArgumentParser] = importlib.import_module(
            program.script.removesuffix(".py").replace("/", ".")
        )._parser
        parser().parse_args(program.arguments)
        return Check.PARSED
    shared = {flag_name(field.name) for field in dataclasses.fields(ModelFlags)}
    for word in program.arguments:
        if word.startswith("--") and word not in shared:
            field = word.removeprefix("--").replace("-", "_")
            assert re.search(rf"^    {field}: ", source, re.MULTILINE), f"{word}: {program.script}"
    return Check.PYTHON


def parse_subcommand(subcommand: Subcommand, arguments: Sequence[str]) -> object:
    """Returns the configuration of a command line; a job file of the reader is an example."""
    words = list(arguments)
    if subcommand.name == "submit":
        words, inner = split_command_line(words)
        check_command(Command(tuple(inner)), ROOT)
    if words and words[0] in subcommand.steps:
        words = words[1:]
    words = name_first_words(words, [flag_name(field) for field in subcommand.first_words])
    for position, word in enumerate(words[:-1]):
        if word == "-C" and not (ROOT / words[position + 1]).is_file():
            words[position + 1] = str(EXAMPLE)
    return parse(subcommand.config_class(), words, program=subcommand.name, description="")


def _check_make(words: Sequence[str]) -> Check:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[-1] in targets, f"make {words[-1]} is no target"
    return Check.MAKE


def _check_python(words: Sequence[str], folder: Path) -> Check:
    if words[1] == "-m":
        module = words[2].replace(".", "/")
        assert words[2] in ("pytest", "pip") or (ROOT / f"{module}.py").is_file(), words[2]
    else:
        assert (folder / words[1]).is_file(), f"{words[1]} does not exist"
    return Check.PYTHON


def check_paths(words: Iterable[str], folder: Path) -> None:
    """Checks that words that look like paths of the repository are paths of it."""
    for word in words:
        path = word.partition("=")[2] or word
        is_ours = path.startswith(tuple(f"{name}/" for name in TOP_FOLDERS)) or (
            path.startswith("../") and "build/" not in path and ".venv" not in path
        )
        if is_ours and not path.endswith(("/X", "prometheus/ray")):
            assert glob.glob(str(folder / path)), f"{path} does not exist in {folder}"
