"""Execution of generated Python programs in a sandbox; returns whether each runs to its end.

Every program runs in processes of its own without environment, in an empty working folder, confined
by confinement.py: no file, no network, no other process, bounded time, memory and output. They are
children of a process that holds nothing of this one (sandbox_child.py).

A program has passed when the pass code that only this process and its runner hold comes back on the
program's own socket. No exit code, output or file counts. Nothing runs on a kernel without such
confinement. Does not depend on tasks.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.evals.execution.programs import Program
from pipeline.evals.execution.sandbox_child import (
    DIGEST,
    LENGTH,
    PASS_CODE_BYTES,
    PLAIN,
    PREPARATION_S,
    TESTED,
)

CHILD = Path(__file__).with_name("sandbox_child.py")
PROBE = "pass"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Limits of one program, the number of parallel programs, and the script that forks them."""

    timeout_s: float = 3.0
    memory_bytes: int = 2**30
    parallel_programs: int = os.cpu_count() or 1
    child: Path = CHILD

    def run(self, programs: Sequence[str]) -> list[bool]:
        """Returns for each program whether it ran to its end.

        The tests of a `Program` run in another process than its candidate. Any other text runs in
        one process, where only a program that rewrites the memory of its own interpreter could be
        counted as right without reaching its end.

        Raises:
            ConfigError: this machine cannot confine programs (expected: Linux with seccomp on
                x86-64 or aarch64), or stopped doing so before all programs had run.
        """
        if not programs:
            return []
        with self._child() as control:
            if not self._passes(PROBE, control):
                raise ConfigError(
                    "--execute-programs: this machine cannot confine programs (expected Linux on "
                    "x86-64 or aarch64 with seccomp); make the report elsewhere, from the same "
                    "outputs"
                )
            with ThreadPoolExecutor(self.parallel_programs) as pool:
                passed = list(pool.map(lambda program: self._passes(program, control), programs))
            if not self._passes(PROBE, control):
                raise ConfigError(
                    "--execute-programs: the process that starts programs ended before all of them "
                    "had run, perhaps for lack of memory or processes; make the report again, from "
                    "the same outputs"
                )
            return passed

    @contextmanager
    def _child(self) -> Iterator[socket.socket]:
        """Runs the process that forks those of programs; yields the socket to it."""
        control, child_end = socket.socketpair()
        with tempfile.TemporaryDirectory() as folder, control:
            limits = (str(self.timeout_s), str(self.memory_bytes))
            with child_end:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(self.child), *limits, folder],
                    stdin=child_end.fileno(),
                    cwd=folder,
                    env={},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            try:
                yield control
            finally:
                # its children end with it
                process.kill()
                process.wait()

    def _passes(self, program: str, control: socket.socket) -> bool:
        pass_code = secrets.token_bytes(PASS_CODE_BYTES)
        layout = PLAIN
        texts = [str(program)]
        if isinstance(program, Program):
            layout = TESTED
            texts = [program.candidate, program.entry_point, program.helpers, program.tests]

        connection, child_end = socket.socketpair()
        with connection, child_end:
            connection.settimeout(self.timeout_s + PREPARATION_S)
            try:
                socket.send_fds(control, [layout], [child_end.fileno()])
                child_end.close()
                connection.sendall(b"".join(map(_framed, texts)) + pass_code)
                answer = _read_to_end(connection, PASS_CODE_BYTES)
            except OSError:  # the process ended before it had read everything, or out of time
                return False
        return secrets.compare_digest(answer, pass_code)


def _framed(text: str) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    return LENGTH.pack(len(content)) + DIGEST(content).digest() + content


def _read_to_end(connection: socket.socket, size: int) -> bytes:
    """Returns what the other end has written until it closes, at most one byte more than `size`."""
    answer = b""
    while len(answer) <= size:
        piece = connection.recv(size + 1 - len(answer))
        if not piece:
            break
        answer += piece
    return answer
