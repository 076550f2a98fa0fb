"""The adapter for lm-evaluation-harness, with the real package in its own environment."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-lm-eval"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_harness_runs_its_tasks_over_the_main_job() -> None:
    if not (ENVIRONMENT / ".installed").exists():
        pytest.skip("lm-evaluation-harness is not installed: make lm-eval")
    command = [
        ENVIRONMENT / "bin" / "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/jobs/harness_cases.py",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout  # none skipped


def test_missing_package_error_explains_the_installation() -> None:
    command = [sys.executable, "jobs/evaluate_lm_eval.py", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    cure = "make lm-eval, then .venv-lm-eval/bin/python jobs/evaluate_lm_eval.py"
    assert done.stderr == f"error: lm-evaluation-harness is not installed here; {cure}\n"
