"""One Ray head for all tests of a process that run jobs and leave Ray as they found it.

Starting and ending a Ray takes as long as a small job: some eight of eighteen seconds.
"""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

STARTS = 3  # Ray gives a node half a minute to come up: not always enough beside other work
RAY_SETTINGS = {
    # Ray starts an idle worker per core for a node's first driver: a second of processor time each.
    "RAY_prestart_worker_first_driver": "0",
    # Ray's workers have the lowest priority but four: beside tests that compile they would get a
    # thirtieth of a core.
    "RAY_worker_niceness": "0",
}
CPUS = 8  # of the shared head: replicas of several jobs in a row, whose processes end one by one


@dataclass
class _Head:
    process: "subprocess.Popen[bytes]"
    folder: Path
    environment: dict[str, str]


def environment() -> dict[str, str]:
    """Returns the variables by which a job finds the shared Ray; starts it at the first call."""
    return dict(_head().environment)


def stop() -> None:
    """Ends the shared Ray, if a test has started it."""
    if not _head.cache_info().currsize:
        return
    head = _head()
    _head.cache_clear()
    _end(head.process)
    shutil.rmtree(head.folder, ignore_errors=True)


@functools.cache
def _head() -> _Head:
    # A short path: Ray puts sockets into it.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    for attempt in range(STARTS):
        log = folder / f"head-{attempt}.log"
        head = _start(folder, log)
        if head is not None:
            return head
    raise AssertionError(f"no Ray head came up: {log.read_text()}")


def _start(folder: Path, log: Path) -> _Head | None:
    gcs_port, agent_port, metrics_port, client_port = free_ports(4)
    variables = {
        "RAY_ADDRESS": f"127.0.0.1:{gcs_port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    command = [
        sys.executable, "-m", "tests.ray_head", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={gcs_port}", f"--num-cpus={CPUS}",
        f"--dashboard-agent-listen-port={agent_port}", f"--metrics-export-port={metrics_port}",
        f"--ray-client-server-port={client_port}", f"--temp-dir={folder}",
        "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            env=_head_variables(variables),
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    while process.poll() is None:
        if "Ray runtime started" in log.read_text():
            return _Head(process, folder, variables)
        time.sleep(0.1)
    _end(process)
    return None


def _head_variables(variables: dict[str, str]) -> dict[str, str]:
    """Returns the environment of the head: without the switches that tests put on for JAX."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "JAX_NUMPY", "XLA_FLAGS"))
    }
    own = {"RAY_agent_register_timeout_ms": "120000"} | RAY_SETTINGS
    head = inherited | own | variables
    del head["RAY_ADDRESS"]
    return head


def free_ports(count: int) -> list[str]:
    """Returns free ports: Ray's defaults would meet other clusters of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
