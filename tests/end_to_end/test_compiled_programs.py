"""Compiled programs are shared through a URL: the next machine compiles nothing."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.jobs.runs import job, report
from tests.pipeline.input.input_files import write


def run_on_machine(machine: str, tmp_path: Path, url: str) -> dict[str, Any]:
    """Runs a small job with an empty cache folder; returns the counters of its engine."""
    output = tmp_path / machine / "run"
    flags = ["--model", "demo", "-i", tmp_path / "in.parquet", "-o", output, "--max-tokens", 8]
    done = job(
        *flags,
        XDG_CACHE_HOME=str(tmp_path / machine / "caches"),
        JAX_COMPILATION_CACHE_DIR=f"{url}/jax",
    )
    assert done.returncode == 0, done.stderr
    counters: dict[str, Any] = report(output)["engine"]
    return counters


@pytest.mark.timeout(300)  # two runs with a Ray of their own
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.s3
def test_second_machine_compiles_nothing(tmp_path: Path, s3_url: str) -> None:
    columns = {"id": ["a", "b"], "prompt": ["2 + 3 =", "2 + 4 ="]}
    write(tmp_path / "in.parquet", columns)

    first = run_on_machine("first", tmp_path, s3_url)
    assert first["programs"] >= 2, "prefill and decode"
    assert first["programs_cached"] == 0
    assert 0 < first["compile_s"] <= first["program_s"] + 1.0

    files, root = fsspec.core.url_to_fs(f"{s3_url}/jax")
    names = files.ls(root, detail=False, refresh=True)
    assert len([name for name in names if name.endswith("-cache")]) >= first["programs"]

    second = run_on_machine("second", tmp_path, s3_url)
    assert second["programs"] == second["programs_cached"] == first["programs"]
