"""Standard streams that cannot be written: a command continues, and its exit code stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINES = 5000  # more than a pipe holds
EXIT_CODE = 3
PROGRAM = """
import sys
from jobs.cli.command import run_main

def main(arguments):
    for line in range(5000):
        print(line, "größe", "x" * 20)
    print("the end", file=sys.stderr)
    return 3

run_main(main)
"""


def start(**options: object) -> "subprocess.Popen[bytes]":
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    variables.update(options.pop("variables", {}))  # type: ignore[call-overload]
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, cwd=ROOT, env=variables, **options)  # type: ignore[call-overload,no-any-return]


def test_command_continues_when_its_reader_leaves() -> None:
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    lines = process.stderr.read().decode().splitlines()
    process.stderr.close()
    assert process.wait() == EXIT_CODE
    assert lines == [
        "warning: standard output is lost (Broken pipe); the command continues",
        "the end",
    ]


def test_command_continues_on_a_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        process = start(stdout=full, stderr=full)
        assert process.wait() == EXIT_CODE


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_command_runs_without_its_streams(redirection: str) -> None:
    command = f'"$0" -c "$1" {redirection}'
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable, PROGRAM],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert ended.returncode == EXIT_CODE


def test_command_escapes_what_an_ascii_terminal_lacks() -> None:
    process = start(stdout=subprocess.PIPE, variables={"PYTHONIOENCODING": "ascii"})
    output, _ = process.communicate()
    assert process.returncode == EXIT_CODE
    lines = output.decode("ascii").splitlines()
    assert len(lines) == LINES
    assert lines[0].startswith(r"0 gr\xf6\xdfe")


def test_command_waits_for_a_full_pipe_in_non_blocking_mode() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = start(stdout=writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        assert len(stream.read().splitlines()) == LINES
    assert process.wait() == EXIT_CODE
