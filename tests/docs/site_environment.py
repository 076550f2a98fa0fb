"""The environment of `make docs`: the site's builder, DuckDB and pandas."""

import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

ENVIRONMENT = ROOT / ".venv-docs" / "bin"


def tool(name: str) -> Path:
    """Returns a program of the environment; skips the test where there is none."""
    path = ENVIRONMENT / name
    if not path.exists():
        pytest.skip(f"{name} is not installed: make docs-tools")
    return path


def run_python(source: str, folder: Path) -> str:
    """Runs a program with the environment's Python and returns what it prints."""
    done = subprocess.run(
        [tool("python"), "-c", source], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{source}"
    return done.stdout
