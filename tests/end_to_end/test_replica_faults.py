"""Failing replicas and signals in real processes: user-visible messages, and no row is lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_score_dataset import random_prompts
from tests.jobs.runs import (
    CONFORMANCE,
    conformance_flags,
    descendants,
    environment,
    job,
    report,
    running,
    table,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]
ROWS = 240
LOADING = "waiting for 1 of 1 replicas"


@pytest.fixture
def flags(tmp_path: Path) -> list[object]:
    """A run of 30 shards in small batches: long enough to be disturbed."""
    prompts = random_prompts(tmp_path / "in.parquet", ROWS)
    sizes = ["--max-tokens", 16, "--max-len", 64, "--shard-rows", ROWS // 30, "--batch-tokens", 64]
    return ["-i", prompts, *conformance_flags(), *sizes, "-o", tmp_path / "out"]


def test_signal_commits_complete_shards_and_run_continues(
    flags: list[object], tmp_path: Path
) -> None:
    """SIGTERM; the same command, Ctrl-C; the same command."""
    committed = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(flags, tmp_path) as run:
            run.wait_for_parts(committed + 2)
            if number == signal.SIGINT:
                os.killpg(run.process.pid, number)  # a terminal sends it to the whole group
            else:
                run.process.send_signal(number)
            said = run.end(75)
        assert said.splitlines()[-1] == (
            "interrupted: the run was interrupted; committed shards are kept, the same command "
            "continues it"
        )
        assert "Traceback" not in said
        before, committed = committed, len(run.parts())
        assert before + 2 <= committed < 30
        assert not (run.output / "_SUCCESS").exists()
        assert report(run.output)["rows"]["shards_committed"] == committed - before
    again = job(*flags, "--batch-tokens", 4096)
    assert again.returncode == 0, again.stderr
    assert f"{committed} of 30 shards are committed already" in again.stdout
    rows = table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in rows] == [f"row {i}" for i in range(ROWS)]
    assert all(row["status"] == "ok" for row in rows)


def test_signal_while_replicas_load_ends_the_job(flags: list[object], tmp_path: Path) -> None:
    with running(flags, tmp_path) as run:
        run.wait_for_text(LOADING)
        run.process.send_signal(signal.SIGTERM)
        said = run.end(75)
        assert "Traceback" not in said
        assert run.parts() == []
        assert report(run.output)["status"] == "interrupted"


def test_killed_replica_is_replaced_and_reported(flags: list[object], tmp_path: Path) -> None:
    """Meanwhile, the cluster that the job started asks a client without its token to stay out."""
    with running(flags, tmp_path) as run:
        run.wait_for_parts(2)
        (replica,) = run.replicas()
        os.kill(replica, signal.SIGSTOP)  # the job waits
        stranger = subprocess.run(
            [sys.executable, "-c", STRANGER, gcs_port(run.process.pid)],
            env=environment(RAY_AUTH_MODE="disabled"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.kill(replica, signal.SIGKILL)
        said = run.end(0)
    assert "replica-0 is lost" in said
    assert "Unauthenticated" in stranger.stderr, stranger
    first, second = report(tmp_path / "out")["replicas"]
    assert first["lost"].startswith("its worker process has died"), first["lost"]
    assert second["lost"] is None
    assert report(tmp_path / "out")["retries"] >= 1
    rows = table(tmp_path / "out").to_pylist()
    assert [(row["id"], row["status"], row["attempts"]) for row in rows] == [
        (f"row {i}", "ok", 1) for i in range(ROWS)
    ]


STRANGER = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=f"127.0.0.1:{sys.argv[1]}").get_all_node_info(timeout=10))
"""


def gcs_port(driver: int) -> str:
    for _, line in descendants(driver):
        for word in line.split():
            if word.startswith("--gcs-address="):
                return word.rpartition(":")[2]
    raise AssertionError("the job started no Ray")


def test_damaged_checkpoint_stops_the_job_with_one_line(
    flags: list[object], tmp_path: Path
) -> None:
    shutil.copytree(CONFORMANCE / "mha" / "ckpt-0", tmp_path / "ckpt-0")
    largest = max((tmp_path / "ckpt-0").iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    done = job(*flags, "--checkpoint", tmp_path / "ckpt-0")
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert largest.name in last
    assert "truncated" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert (report(tmp_path / "out")["status"], report(tmp_path / "out")["message"]) == (
        "failed",
        last.removeprefix("error: "),
    )
