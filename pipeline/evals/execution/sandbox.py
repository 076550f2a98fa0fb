"""Python programs that a model wrote → whether each runs to its end, executed where they can do no harm. Knows no tasks.

Every program gets a process of its own without environment, in an empty working folder, confined by
sandbox_child.py: no network, no other processes, no file written, bounded time, memory and output.
Where the kernel offers no such confinement, nothing is run.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.evals.execution.sandbox_child import NO_SANDBOX, PASSED

CHILD = Path(__file__).with_name("sandbox_child.py")
# for the interpreter to start on a busy machine, before the program's own time begins
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Limits of one program, and how many run at the same time."""

    timeout_s: float = 3.0
    memory_bytes: int = 2**30
    at_once: int = os.cpu_count() or 1

    def run(self, programs: Sequence[str]) -> list[bool]:
        """Returns for each program whether it ran to its end.

        Raises:
            ConfigError: this machine cannot confine programs (expected: Linux with seccomp on x86-64 or aarch64).
        """
        with tempfile.TemporaryDirectory() as empty, ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(lambda program: self._run_one(program, empty), programs))

    def _run_one(self, program: str, folder: str) -> bool:
        command = [sys.executable, "-I", str(CHILD), str(self.timeout_s), str(self.memory_bytes)]
        try:
            done = subprocess.run(
                command, input=program.encode("utf-8", "surrogatepass"), cwd=folder, env={}, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, timeout=self.timeout_s + START_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        if done.returncode == NO_SANDBOX:
            raise ConfigError(
                "--execute-programs: this machine cannot confine programs (expected Linux on "
                "x86-64 or aarch64 with seccomp); "
                "make the report elsewhere, from the same outputs"
            )
        return done.returncode == PASSED
