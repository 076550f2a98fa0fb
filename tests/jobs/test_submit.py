"""`ray job submit` against a real head started by `ray start --head`, with a second node and token authentication."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.runs import ROOT, descendants, environment, report, running, same_tables, table

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
ROWS = 200
BIN = Path(sys.executable).parent


def free_ports(count: int) -> list[str]:
    """Returns ports nobody listens on: Ray's own defaults would meet other clusters of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """A head and a worker node on this machine, in a folder of their own."""

    def __init__(self, folder: str) -> None:
        gcs, self.dashboard, *agents = free_ports(8)
        self.env = environment(
            RAY_TMPDIR=folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), PATH=f"{BIN}:{os.environ['PATH']}"
        )
        del self.env["RAY_ADDRESS"]
        self.log = Path(folder, "cluster.log")
        head = ["--head", "--port", gcs, "--dashboard-port", self.dashboard, "--num-cpus=1"]
        node = ["--address", f"127.0.0.1:{gcs}", "--num-cpus=1"]
        client = ["--ray-client-server-port", agents[4]]
        self.nodes = [
            [*head, "--dashboard-agent-listen-port", agents[0], "--metrics-export-port", agents[1], *client],
            [*node, "--dashboard-agent-listen-port", agents[2], "--metrics-export-port", agents[3]],
        ]
        self.gcs = f"127.0.0.1:{gcs}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts the head, and the other node once the head answers."""
        for flags in self.nodes:
            self.processes.append(self._start(*flags))
            self._wait("health-check", "--address", self.gcs)

    def _start(self, *flags: str) -> "subprocess.Popen[bytes]":
        command = [str(BIN / "ray"), "start", *flags, "--node-ip-address=127.0.0.1", "--block", "--disable-usage-stats"]
        with self.log.open("a") as log:
            return subprocess.Popen(command, env=self.env, cwd="/", stdout=log, stderr=log, start_new_session=True)

    def ray(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(BIN / "ray"), *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    def _wait(self, *arguments: str) -> None:
        for _ in range(60):
            done = self.ray(*arguments)
            if done.returncode == 0:
                return
            time.sleep(1)
        raise AssertionError(done.stdout + done.stderr)

    def submit(self, *job: object) -> "subprocess.CompletedProcess[str]":
        """Submits; for some seconds, a head that has just started has no dashboard, then no agent."""
        for _ in range(30):
            address = ["--address", f"http://127.0.0.1:{self.dashboard}"]
            done = self.ray("job", "submit", *address, "--working-dir", ".", "--", *map(str, job))
            if "No available agent" not in done.stderr and "Failed to connect to Ray" not in done.stderr:
                return done
            time.sleep(2)
        return done

    def kill_node(self, node: int) -> None:
        """All at once, as when a machine loses its power. First its replica stops, so that the run cannot end before."""
        below = list(descendants(self.processes[node].pid))
        (replica,) = [pid for pid, line in below if "RemoteReplica" in line]
        os.kill(replica, signal.SIGSTOP)
        (raylet,) = [pid for pid, line in below if line.split(" ")[0].endswith("/raylet")]
        for pid in (raylet, replica):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # asked politely, a node drains for half a minute
        for process in self.processes:
            process.wait(60)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="ray-", dir=tempfile.gettempdir())  # short: Ray puts sockets into it
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_submitted_jobs_run_on_both_nodes_are_found_done_and_outlive_a_node(cluster: Cluster, tmp_path: Path) -> None:
    """The code travels with the job; each node has one CPU, so that two replicas need both. Then one raylet gets kill -9."""
    prompts = shutil.copy(ROOT / "jobs" / "demo" / "prompts.parquet", tmp_path)  # the uploaded copy is another file each time
    flags: list[object] = ["-i", prompts, "-o", tmp_path / "out", "--model", "demo", "--dtype", "float32"]
    flags += ["--max-tokens", 16, "--max-len", 128]
    sizes = ["--limit", ROWS, "--replicas", 2, "--shard-rows", 10]
    job = ["python", "jobs/score_dataset.py", *flags, *sizes]
    done = cluster.submit(*job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "Ray cluster at" in done.stdout
    rows = table(tmp_path / "out").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * ROWS
    came_up = [replica for replica in report(tmp_path / "out")["replicas"] if replica["info"]]
    assert len(came_up) == 2
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fingerprint"]
    again = cluster.submit(*job)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout
    # The same rows once more, in small batches, and a machine dies while its replica holds some.
    disturbed = tmp_path / "disturbed"
    flags[3] = disturbed / "out"
    disturbed.mkdir()
    reach = {name: value for name, value in cluster.env.items() if name.startswith("RAY_")}
    with running([*flags, *sizes, "--batch-tokens", 64], disturbed, **reach, RAY_ADDRESS=cluster.gcs) as run:
        run.wait_for_parts(1)
        cluster.kill_node(1)
        said = run.end(0)
    lost = [replica["lost"] for replica in report(run.output)["replicas"] if replica["lost"] and replica["info"]]
    assert len(lost) == 1, said
    same_tables(table(tmp_path / "out"), table(run.output))
