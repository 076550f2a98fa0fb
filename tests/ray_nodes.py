"""A real Ray cluster for tests: `ray start` nodes on this machine, with a token and own ports."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.jobs.runs import ROOT, descendants, environment
from tests.shared_ray import free_ports

BIN = Path(sys.executable).parent


class Cluster:
    """A head and a worker node on this machine, in a folder of their own."""

    def __init__(
        self, folder: str, *, nodes: int = 2, head_flags: Sequence[str] = (), **more: str
    ) -> None:
        """`nodes` counts the head.

        `head_flags` go to its `ray start`, where {gcs} is its address; `more` is environment.
        """
        gcs, self.dashboard, *agents = free_ports(8)
        self.folder, self.gcs, self.metrics = Path(folder), f"127.0.0.1:{gcs}", agents[1]
        self.env = environment(
            RAY_TMPDIR=folder,
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
            PATH=f"{BIN}:{os.environ['PATH']}",
            RAY_agent_register_timeout_ms="120000",  # other work on this machine may make it slow
            **more,
        )
        del self.env["RAY_ADDRESS"]
        head = [
            "--head",
            "--port",
            gcs,
            "--dashboard-port",
            self.dashboard,
            "--num-cpus=1",
            *head_flags,
        ]
        node = ["--address", f"127.0.0.1:{gcs}", "--num-cpus=1"]
        client = ["--ray-client-server-port", agents[4]]
        flags = [
            [
                *head,
                "--dashboard-agent-listen-port",
                agents[0],
                "--metrics-export-port",
                agents[1],
                *client,
            ],
            [*node, "--dashboard-agent-listen-port", agents[2], "--metrics-export-port", agents[3]],
        ]
        self.nodes = flags[:nodes]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts the head, and the other node once the head is up."""
        for number, flags in enumerate(self.nodes):
            # Ray gives a node half a minute to come up: not enough where other work is heavy
            for attempt in range(3):
                log = self.folder / f"node-{number}-{attempt}.log"
                process = self._start(log, *flags)
                if self._up(process, log):
                    self.processes.append(process)
                    break
            else:
                raise AssertionError(log.read_text())

    def _start(self, log: Path, *flags: str) -> "subprocess.Popen[bytes]":
        command = [
            str(BIN / "ray"),
            "start",
            *flags,
            "--node-ip-address=127.0.0.1",
            "--block",
            "--disable-usage-stats",
        ]
        with log.open("w") as stream:
            return subprocess.Popen(
                command, env=self.env, cwd="/", stdout=stream, stderr=stream, start_new_session=True
            )

    def _up(self, process: "subprocess.Popen[bytes]", log: Path) -> bool:
        """Whether the node comes up; what is left of one that does not is ended."""
        while process.poll() is None:
            if "Ray runtime started" in log.read_text():
                return True
            time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return False

    def ray(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(BIN / "ray"), *arguments]
        return subprocess.run(
            command,
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def submit(self, *job: object) -> "subprocess.CompletedProcess[str]":
        """Submits.

        For some seconds, a head that has just started has no dashboard, then no agent.
        """
        for _ in range(30):
            done = self.ray(
                "job", "submit", "--address", self.url, "--working-dir", ".", "--", *map(str, job)
            )
            if (
                "No available agent" not in done.stderr
                and "Failed to connect to Ray" not in done.stderr
            ):
                return done
            time.sleep(2)
        return done

    def kill_node(self, node: int) -> None:
        """All at once, as when a machine loses its power.

        First its replica stops, so that the run cannot end before.
        """
        below = list(descendants(self.processes[node].pid))
        (replica,) = [pid for pid, line in below if "RemoteReplica" in line]
        os.kill(replica, signal.SIGSTOP)
        (raylet,) = [pid for pid, line in below if line.split(" ")[0].endswith("/raylet")]
        for pid in (raylet, replica):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                # asked politely, a node drains for half a minute
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(60)


@contextlib.contextmanager
def running_cluster(
    *, prepare: Callable[[str], None] = lambda _: None, **how: Any
) -> Iterator[Cluster]:
    """Starts a cluster and takes it down with all that belongs to it.

    `prepare` is told its address before.
    """
    # short: Ray puts sockets into it
    folder = tempfile.mkdtemp(prefix="ray-", dir=tempfile.gettempdir())
    made = Cluster(folder, **how)
    prepare(made.gcs)
    try:
        made.start()
        yield made
    finally:
        made.stop()
    shutil.rmtree(folder, ignore_errors=True)
