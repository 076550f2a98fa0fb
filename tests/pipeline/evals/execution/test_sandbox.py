"""Programs in the sandbox: correct ones pass, others fail, and none has side effects."""

import ctypes
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.evals.execution.confinement import landlock_version
from pipeline.evals.execution.programs import Program
from pipeline.evals.execution.sandbox import Sandbox

# long: a program that is to pass must, on a busy machine too
LIMITS = Sandbox(timeout_s=20, memory_bytes=2**28)
SHORT = Sandbox(timeout_s=0.3)


TESTED = Program.of(
    "def double(x):\n    return 2 * x",
    "def check(candidate):\n    assert candidate(2) == double(x=2) == half(8)\n\ncheck(double)",
    helpers="def half(x):\n    return x / 2\n\ndef double(x):\n    pass\n",
    entry_point="double",
)


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
            f"open('{file}')",
            "open('/proc/self/environ')",
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


def test_no_program_runs_without_confinement(tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    root = Path(__file__).parents[4]
    child.write_text(
        f"import sys\nsys.path.insert(0, {str(root)!r})\n"
        "from pipeline.evals.execution import confinement, sandbox_child\n"
        "confinement.ARCHITECTURES.clear()\nsandbox_child.main()\n"
    )
    unconfined = replace(LIMITS, child=child)
    proof = tmp_path / "proof"
    with pytest.raises(ConfigError, match="cannot confine"):
        unconfined.run([f"open({str(proof)!r}, 'w')"])
    assert not proof.exists()


def test_program_lists_its_own_folder_only(tmp_path: Path) -> None:
    assert passes("import os\nassert os.listdir('.') == []")
    if landlock_version(ctypes.CDLL(None)) > 0:
        assert passes(refused(f"os.listdir({str(tmp_path)!r})"))
        assert passes(refused("os.listdir('/proc')"))


def test_sandbox_uses_libraries_without_reading_files() -> None:
    programs = [
        "import numpy as np\nassert np.linalg.norm(np.array([3.0, 4.0])) == 5",
        "from datetime import datetime\nassert datetime.strptime('2024-02', '%Y-%m').month == 2",
        "def f():\n    from xml.etree import ElementTree\n    ElementTree.Element('a')\nf()",
        "try:\n    import no_such_module\nexcept ImportError:\n    pass\nelse:\n    assert 0",
        "assert '☃'.encode('utf-16').decode('utf-16') == '\\N{SNOWMAN}'",
        "from __future__ import annotations\nimport enum\nenum.Enum('A', 'x')",
    ]
    assert dict(zip(programs, LIMITS.run(programs), strict=True)) == dict.fromkeys(programs, True)


def test_sandbox_leaves_no_process() -> None:
    memory_bytes = 2**28 + 12_345  # found in no other command line
    assert LIMITS.run([TESTED]) == [True]
    assert Sandbox(0.3, memory_bytes).run(["while True: pass"]) == [False]
    while processes_with_argument(str(memory_bytes)):
        time.sleep(0.01)


def processes_with_argument(argument: str) -> list[Path]:
    found = []
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in command_line.read_bytes().split(b"\0"):
                found.append(command_line)
    return found


def test_tests_call_the_candidate_and_the_helpers() -> None:
    wrong = Program.of(
        "def double(x):\n    return x",
        TESTED.tests,
        helpers=TESTED.helpers,
        entry_point="double",
    )
    helpers_that_do_not_compile = Program.of(
        "def double(x):\n    return 2 * x",
        "assert double(1) == 2",
        helpers="def double(x):\n    return (",
        entry_point="double",
    )
    programs = [TESTED, wrong, helpers_that_do_not_compile]
    assert LIMITS.run(programs) == [True, False, True]


def test_results_are_refused_if_the_starting_process_ended(tmp_path: Path) -> None:
    """Programs that could not be started must not count as wrong."""
    child = tmp_path / "child.py"
    root = Path(__file__).parents[4]
    child.write_text(
        f"import os, sys\nsys.path.insert(0, {str(root)!r})\n"
        "from pipeline.evals.execution import sandbox_child\n"
        "fork, forks = os.fork, []\n"
        "def fork_twice():\n"
        "    forks.append(1)\n"
        "    if len(forks) > 2:\n        os._exit(1)\n"
        "    return fork()\n"
        "os.fork = fork_twice\nsandbox_child.main()\n"
    )
    with pytest.raises(ConfigError, match="ended before all of them had run"):
        replace(LIMITS, child=child).run(["pass", "pass", "pass"])
