"""README example on a local Ray with the demo model: killed twice, same bytes as undisturbed."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.runs import ROOT, Running, descendants, environment, running
from tests.jobs.test_generate_dataset import rows, statistics, tables

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
TARGET, SHARD_ROWS, SEED_ROWS, N = 30, 5, 200, 4
FEWER = [
    "--target-rows",
    TARGET,
    "--shard-rows",
    SHARD_ROWS,
    "--batch-tokens",
    256,
    "--max-len",
    128,
]
README_COMMAND = re.compile(
    r"^\.venv/bin/python (jobs/generate_dataset\.py -C jobs/configs/word_problems\.yaml .*)$",
    re.MULTILINE,
)
DEADLY = """
import os, runpy, signal, sys
from pipeline import storage

publish = storage.put_if_absent

def deadly(url, data):
    if url.endswith("/dataset/README.md"):
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(url, data)

storage.put_if_absent = deadly
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command(output: Path, *program: str) -> list[str]:
    """The README's command for fewer rows; `program` stands between Python and the job."""
    (words,) = README_COMMAND.findall((ROOT / "README.md").read_text())
    own_output = words.replace("-o runs/problems", f"-o {shlex.quote(str(output))}")
    return [sys.executable, *program, *shlex.split(own_output), *map(str, FEWER)]


def finish(words: list[str], code: int = 0) -> str:
    """Runs a command to its end and returns what it said."""
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def kill_at(run: Running, parts: int) -> None:
    """kill -9 of a driver that has committed so many shards, with a replica that has more to do.

    Then of what its Ray left.
    """
    run.stop_replica(parts)
    left = [pid for pid, _ in descendants(run.process.pid)]
    run.process.kill()
    run.process.wait()
    for pid in left:
        # some end by themselves when their driver is gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def description(dataset: Path) -> dict[str, Any]:
    """What run.json says but for when the prompts were written, which fingerprints cover."""
    told: dict[str, Any] = json.loads((dataset / "run.json").read_text())
    told["input"] = [{**file, "version": None} for file in told["input"]]
    told["fingerprint_keys"] |= {"prompts": None, "completions": None}
    return told | {"fingerprint": None}


def test_job_killed_in_run_and_selection_gives_the_same_bytes(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    finish(command(out))
    shutil.move(out, whole)
    with running([], tmp_path, program=command(out)) as run:
        completions = dataclasses.replace(run, output=out / "completions")
        kill_at(completions, 1)
        kept = {path: path.stat().st_mtime_ns for path in completions.parts()}
    assert 1 <= len(kept) < TARGET / SHARD_ROWS, "killed in the middle"
    assert not (out / "dataset").exists()
    said = finish(command(out, "-c", DEADLY), -signal.SIGKILL)
    assert f"resume   {len(kept)} of {SEED_ROWS // SHARD_ROWS} shards are committed already" in said
    assert (out / "dataset" / "statistics.json").exists()
    assert not (out / "dataset" / "README.md").exists()
    assert "has enough rows" in finish(command(out)), "nothing is generated again"
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in completions.parts()}.items()
    assert tables(out / "dataset") == tables(whole / "dataset")
    assert description(out / "dataset") == description(whole / "dataset")
    check(whole / "dataset")


def check(dataset: Path) -> None:
    """What the README says of its example."""
    assert {
        "README.md",
        "statistics.json",
        "_SUCCESS",
        "data/train-00000.parquet",
        "rejected/rejected-00000.parquet",
    } == set(tables(dataset))
    accepted, found = rows(dataset), statistics(dataset)
    assert len({row["id"] for row in accepted}) == len(accepted) == TARGET
    assert all(row["answer"] == row["a"] + row["b"] for row in accepted)
    assert (
        found["samples"]
        == found["accepted"] + found["rejected"] + found["failed"]
        == N * found["seed_rows"]
    )
    assert found["seed_rows"] + found["seed_rows_not_needed"] == SEED_ROWS
