"""External checkers: where they are installed, or why a test that needs one is skipped."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-infra" / "bin"  # make infra-tools


def program(name: str, install: str) -> str:
    """Returns the path of a program.

    Skips the test, with what would install it, where there is none.
    """
    found = shutil.which(name, path=str(TOOLS)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {install}")
    return found


def python_with(module: str) -> str:
    """Returns a Python of the checkers' environment that has a module.

    Skips the test where there is none.
    """
    python = TOOLS / "python"
    if (
        not python.exists()
        or subprocess.run(
            [python, "-c", f"import {module}"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip(f"{module} is not installed in .venv-infra: make infra-tools")
    return str(python)
