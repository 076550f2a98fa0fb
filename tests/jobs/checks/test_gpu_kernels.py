"""The comparison of GPU kernels with plain XLA, in the interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from actors.kernels.xla.platform import XLA
from jobs import check_gpu

ROOT = Path(__file__).parents[3]
# Imported by the other jobs; a machine that only measures a GPU does not have them.
ABSENT = (
    "ray",
    "pyarrow",
    "fsspec",
    "s3fs",
    "botocore",
    "aiohttp",
    "grpc",
    "sentencepiece",
    "safetensors",
    "tenacity",
    "rich",
    "jinja2",
    "matplotlib",
    "rensa",
    "optax",
)
# Runs `main` of a module with its arguments, while importing an absent package raises.
PROGRAM = """
import importlib, sys
module, absent, *arguments = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split(",")))
sys.exit(importlib.import_module(module).main(arguments))
"""


def attend_wrongly(q: Any, *arguments: Any) -> Any:
    return XLA.kernels.attend(q, *arguments) + jnp.asarray(0.1, q.dtype)


@pytest.mark.slow
def test_check_reports_a_wrong_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = XLA.kernels._replace(attend=attend_wrongly)

    assert check_gpu.main(["--interpret"], interpreted=wrong) == 1

    printed = capsys.readouterr().out
    assert printed.count("differs by") == 11
    assert printed.count("WRONG") == 4


def test_check_without_a_gpu_names_the_package_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_gpu.main([]) == 2
    assert "JAX sees no GPU but cpu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(420)  # a minute of processor time: all kernels in the interpreter
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("jobs.check_gpu", ["--interpret"]),
        (
            "jobs.benchmark",
            [
                "--model=tiny-shard",
                "--layers=1",
                "--slots=2",
                "--prefill-rows=1",
                "--prefill-length=16",
                "--context=4",
                "--new-tokens=2",
            ],
        ),
    ],
)
def test_measurement_runs_without_packages_of_other_jobs(
    module: str, arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, ",".join(ABSENT), *arguments, f"--json={out}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert '"jax"' in out.read_text()
