"""Programs in the sandbox: correct ones pass, others fail, and none has side effects."""

import socket
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.evals.execution import sandbox, sandbox_child
from pipeline.evals.execution.sandbox import Sandbox

# long: a program that is to pass must, on a busy machine too
LIMITS = Sandbox(timeout_s=20, memory_bytes=2**28)
SHORT = Sandbox(timeout_s=0.3)


def passes(program: str) -> bool:
    [passed] = LIMITS.run([program])
    return passed


def test_result_is_per_program() -> None:
    correct = (
        "import math, re, collections, itertools, typing, hashlib, heapq, functools, random\n"
        "assert math.gcd(6, 4) == 2"
    )
    programs = [
        correct,
        "assert 1 == 2",
        "def f(:",
        "raise SystemExit(0)",
        "import os; os._exit(1)",
        "x = 'ä'\nassert len(x) == 1",
    ]
    assert LIMITS.run(programs) == [True, False, False, False, False, True]
    assert LIMITS.run([]) == []


def test_program_has_no_main_environment_files_or_input() -> None:
    assert passes("if __name__ == '__main__':\n    raise ValueError")
    assert passes("import os\nassert not set(os.environ) - {'LC_CTYPE'} and not os.listdir('.')")
    assert not passes("input()")


def test_time_and_memory_are_limited() -> None:
    assert SHORT.run(["while True: pass", "import time; time.sleep(60)"]) == [False, False]
    programs = ["import time; time.sleep(0.01)", "x = bytearray(2**29)"]
    assert LIMITS.run(programs) == [True, False]
    assert Sandbox(timeout_s=20, memory_bytes=2**30).run(programs) == [True, True]


def test_program_cannot_catch_or_block_the_time_limit() -> None:
    program = "import signal\ntry:\n    {}\nexcept OSError:\n    pass\nwhile True: pass"
    catching = program.format("signal.signal(signal.SIGALRM, print)")
    blocking = program.format("signal.pthread_sigmask(0, [signal.SIGALRM])")
    assert SHORT.run([catching, blocking]) == [False, False]


def refused(statement: str) -> str:
    """A program that passes if the kernel refuses the statement."""
    return (
        f"import os, socket, subprocess, threading\ntry:\n    {statement}\n"
        "except (PermissionError, RuntimeError):\n    pass\nelse:\n    raise AssertionError"
    )


def test_program_cannot_connect_fork_or_change_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    with socket.create_server(("127.0.0.1", 0)) as server:
        statements = [
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))",
            "socket.socket(socket.AF_UNIX)",
            "os.fork()",
            "os.execv('/bin/true', ['true'])",
            "subprocess.run(['/bin/true'])",
            "threading.Thread(target=print).start()",
            "os.kill(os.getppid(), 9)",
            "os.pipe()",
            f"open('{file}', 'w')",
            f"open('{file}', 'a')",
            f"open('{file}', 'r+')",
            f"os.unlink('{file}')",
            f"os.truncate('{file}', 0)",
            f"os.chmod('{file}', 0)",
            f"os.rename('{file}', '{file}2')",
            f"os.symlink('{file}', '{file}2')",
            f"os.mkdir('{file}2')",
            f"os.utime('{file}')",
        ]
        passed = LIMITS.run([refused(statement) for statement in statements])
        assert dict(zip(statements, passed, strict=True)) == dict.fromkeys(statements, True)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert file.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_program_runs_without_confinement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    text = Path(sandbox_child.__file__).read_text()
    child.write_text(text.replace('"x86_64"', '"other"').replace('"aarch64"', '"else"'))
    monkeypatch.setattr(sandbox, "CHILD", child)
    proof = tmp_path / "proof"
    with pytest.raises(ConfigError, match="cannot confine"):
        LIMITS.run([f"open({str(proof)!r}, 'w')"])
    assert not proof.exists()


@pytest.mark.parametrize("machine", list(sandbox_child.ARCHITECTURES))
def test_filter_allows_only_listed_system_calls(machine: str) -> None:
    """Interprets the filter, which checks the numbers of all architectures on one machine."""
    column, architecture = sandbox_child.ARCHITECTURES[machine]
    named = {pair[column] for pair in sandbox_child.ALLOWED.values()} - {None}
    opening = {pair[column] for pair in (sandbox_child.OPEN, sandbox_child.OPENAT)} - {None}
    code = sandbox_child.seccomp_filter(machine)
    for number in range(600):
        verdicts = {
            flags: run_filter(code, number, architecture, flags)
            for flags in (0, 1, 2, 0o100, 0o2000000)
        }
        expected = {
            flags: number in named or (number in opening and flags in (0, 0o2000000))
            for flags in verdicts
        }
        assert {
            flags: verdict == sandbox_child.ALLOW for flags, verdict in verdicts.items()
        } == expected, number
    assert run_filter(code, 0, 1234, 0) == sandbox_child.KILL
    assert run_filter(code, 0x40000000, architecture, 0) == sandbox_child.REFUSE


def run_filter(code: bytes, number: int, architecture: int, flags: int) -> int:
    """Interprets BPF over a struct seccomp_data whose second and third arguments are `flags`."""
    words = {0: number, 4: architecture, 24: flags, 32: flags}
    at, accumulator = 0, 0
    while True:
        kind, yes, no = int.from_bytes(code[at : at + 2], "little"), code[at + 2], code[at + 3]
        constant = int.from_bytes(code[at + 4 : at + 8], "little")
        at += 8
        if kind == sandbox_child.RETURN:
            return constant
        if kind == sandbox_child.LOAD:
            accumulator = words[constant]
            continue
        true = {
            sandbox_child.EQUAL: accumulator == constant,
            sandbox_child.GREATER_OR_EQUAL: accumulator >= constant,
            sandbox_child.ANY_BIT: bool(accumulator & constant),
        }[kind]
        at += 8 * (yes if true else no)
