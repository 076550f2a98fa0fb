"""The notebooks of the documentation: all cells run, and print what the notebook shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import shared_ray
from tests.jobs.runs import ROOT, environment

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def stored_output(path: Path) -> str:
    """Returns what the notebook shows below its cells."""
    texts: list[str] = []
    for cell in json.loads(path.read_text())["cells"]:
        for output in cell.get("outputs", []):
            texts += output["text"]
    return "".join(texts)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_print_what_the_notebook_shows(path: Path, tmp_path: Path) -> None:
    variables = environment(**shared_ray.environment()) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "docs" / "notebooks.py"), str(path)],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == stored_output(path)


def test_there_is_a_notebook_of_the_python_api() -> None:
    assert [path.name for path in NOTEBOOKS] == ["python-api.ipynb"]
