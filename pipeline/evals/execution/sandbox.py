"""Execution of generated Python programs in a sandbox; returns whether each runs to its end.

Every program runs in its own process without environment, in an empty working folder, confined by
sandbox_child.py: no network, no other processes, no file written, bounded time, memory and output.
Nothing runs on a kernel without such confinement. Does not depend on tasks.
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
# time for the interpreter to start on a busy machine, before that of the program begins
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Limits of one program, and the number of programs that run in parallel."""

    timeout_s: float = 3.0
    memory_bytes: int = 2**30
    parallel_programs: int = os.cpu_count() or 1

    def run(self, programs: Sequence[str]) -> list[bool]:
        """Returns for each program whether it ran to its end.

        Raises:
            ConfigError: this machine cannot confine programs (expected: Linux with seccomp on
                x86-64 or aarch64).
        """
        with (
            tempfile.TemporaryDirectory() as empty_folder,
            ThreadPoolExecutor(self.parallel_programs) as pool,
        ):
            passed = pool.map(lambda program: self._run_one(program, empty_folder), programs)
            return list(passed)

    def _run_one(self, program: str, folder: str) -> bool:
        command = [sys.executable, "-I", str(CHILD), str(self.timeout_s), str(self.memory_bytes)]
        try:
            process = subprocess.run(
                command,
                input=program.encode("utf-8", "surrogatepass"),
                cwd=folder,
                env={},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                timeout=self.timeout_s + START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        if process.returncode == NO_SANDBOX:
            raise ConfigError(
                "--execute-programs: this machine cannot confine programs (expected Linux on "
                "x86-64 or aarch64 with seccomp); make the report elsewhere, from the same outputs"
            )
        return process.returncode == PASSED
