"""Replicas and signals that disturb the main job, in real processes: what the user sees, and that nothing is lost."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.runs import CONFORMANCE, ROOT, command, conformance_flags, environment, job, report, table
from tests.jobs.test_end_to_end import random_prompts

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]
LOADING = "waiting for 1 of 1 replicas"


@dataclass
class Running:
    """A job in a session of its own."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def wait_for_text(self, text: str) -> None:
        self._wait(lambda: text in self.log.read_text(), text)

    def wait_for_parts(self, count: int) -> None:
        self._wait(lambda: len(self.parts()) >= count, f"{count} committed shards")

    def parts(self) -> list[Path]:
        return sorted((self.output / "data").glob("part-*"))

    def replicas(self) -> list[int]:
        """Process ids of its actors."""
        return [pid for pid, name in descendants(self.process.pid) if "ray::" in name and "RemoteReplica" in name]

    def end(self, code: int) -> str:
        """Waits for the end and returns what was said."""
        found = self.process.wait(120)
        said = self.log.read_text()
        assert found == code, said
        return said

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + 150
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < ends, f"no {what}: {self.log.read_text()}"
            time.sleep(0.02)


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Yields (process id, command line) of all processes below `pid`."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield from descendants(child)


@pytest.fixture
def flags(tmp_path: Path) -> list[object]:
    """A run of 30 shards in small batches: long enough to be disturbed."""
    prompts = random_prompts(tmp_path / "in.parquet", 120)
    sizes = ["--max-tokens", 16, "--max-len", 64, "--shard-rows", 4, "--batch-tokens", 64]
    return ["-i", prompts, *conformance_flags(), *sizes, "-o", tmp_path / "out"]


@contextlib.contextmanager
def running(flags: list[object], tmp_path: Path) -> Iterator[Running]:
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command(*flags), cwd=ROOT, env=environment(), stdout=stream, stderr=stream, start_new_session=True
        )
    below: list[int] = []
    try:
        yield Running(process, tmp_path / "out", log)
    finally:
        below = [pid for pid, _ in descendants(process.pid)]
        for pid in (process.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "ctrl-C"])
def test_a_signal_commits_what_is_complete_and_the_same_command_continues(
    number: signal.Signals, flags: list[object], tmp_path: Path
) -> None:
    with running(flags, tmp_path) as run:
        run.wait_for_parts(2)
        if number == signal.SIGINT:
            os.killpg(run.process.pid, number)  # a terminal sends it to the whole group
        else:
            run.process.send_signal(number)
        said = run.end(75)
        assert said.splitlines()[-1] == (
            "interrupted: the run was interrupted; committed shards are kept, the same command continues it"
        )
        assert "Traceback" not in said
        committed = len(run.parts())
        assert 2 <= committed < 30
        assert not (run.output / "_SUCCESS").exists()
        assert 2 <= report(run.output)["rows"]["shards_committed"] <= committed
    again = job(*flags, "--batch-tokens", 4096)
    assert again.returncode == 0, again.stderr
    assert f"{committed} of 30 shards are committed already" in again.stdout
    rows = table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in rows] == [f"row {i}" for i in range(120)]
    assert all(row["status"] == "ok" for row in rows)


def test_a_signal_while_replicas_load_ends_the_job_at_once(flags: list[object], tmp_path: Path) -> None:
    with running(flags, tmp_path) as run:
        run.wait_for_text(LOADING)
        began = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        said = run.end(75)
        assert time.monotonic() - began < 60
        assert "Traceback" not in said
        assert run.parts() == []


def test_a_killed_replica_is_replaced_and_reported_and_strangers_cannot_join(flags: list[object], tmp_path: Path) -> None:
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
    assert [(row["id"], row["status"], row["attempts"]) for row in rows] == [(f"row {i}", "ok", 1) for i in range(120)]


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


def test_a_damaged_checkpoint_stops_the_job_with_one_sentence(flags: list[object], tmp_path: Path) -> None:
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
