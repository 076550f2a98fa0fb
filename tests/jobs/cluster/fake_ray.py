"""Runs `ray_cluster` in a process of its own, in which a module of this file stands in for Ray.

Ray reads its environment when it is imported, and `ray_cluster` sets it before.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from jobs.run.plan import ROOT

RAY = """
import os
import signal
import stat
import subprocess
from pathlib import Path

calls = []
starts = []
CHILD = ["sleep", "600"]


def init(**arguments):
    calls.append([arguments["address"], arguments.get("num_cpus")])
    if arguments["address"] == "local":
        start_local(Path(arguments["_temp_dir"]))
    elif "REFUSAL" in os.environ:
        raise RuntimeError(os.environ["REFUSAL"])


def start_local(folder):
    log = folder / "session" / "gcs_server.out"
    log.parent.mkdir()
    with log.open("w") as output:
        child = subprocess.Popen(CHILD, stdout=output, stderr=output)
    mode = stat.S_IMODE(folder.parent.stat().st_mode)
    starts.append({"folder": str(folder), "pid": child.pid, "mode": mode})

    if len(starts) <= int(os.environ.get("FAILED_STARTS", "0")):
        raise Exception("The current node timed out during startup.")
    if "SIGNAL" in os.environ:
        # As `ray.init` does.
        signal.signal(signal.SIGTERM, lambda number, frame: exit(number))
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))


def shutdown():
    calls.append(["shutdown", None])


class Context:
    gcs_address = "10.0.0.1:6379"


def get_runtime_context():
    return Context
"""
NODE = """
class Node:
    pass
"""
PROBE = """
import json
import os

from actors.protocol.errors import GrokBatchError
from jobs.cluster.connection import ray_cluster


def ray_variables():
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


before = ray_variables()
inside = {}
try:
    with ray_cluster(999) as description:
        outcome = description
        inside = ray_variables()
except GrokBatchError as error:
    outcome = f"{type(error).__name__}: {error}"
try:
    import ray
    calls, starts = ray.calls, ray.starts
except ImportError:
    calls, starts = [], []

for start in starts:
    start["is_left"] = os.path.lexists(start["folder"])
    try:
        start["runs"] = os.waitpid(start["pid"], os.WNOHANG)[0] == 0
    except ChildProcessError:
        start["runs"] = False
print(json.dumps({
    "outcome": outcome,
    "calls": calls,
    "starts": starts,
    "variables": inside,
    "left": sorted(set(ray_variables()) - set(before)),
}))
"""
LOCAL = ["local", 999]
SHUTDOWN = ["shutdown", None]


def connect(folder: Path, *, announced: str | None = None, **variables: str) -> dict[str, Any]:
    """Returns what `ray_cluster(999)` yields or raises, its calls of Ray, and its variables.

    Args:
        folder: temporary and home folder of the process.
        announced: the note of `ray start`.
        variables: its environment, besides.
    """
    module = folder / "modules"
    module.mkdir(exist_ok=True)
    private = module / "ray" / "_private"
    private.mkdir(parents=True, exist_ok=True)
    (module / "ray" / "__init__.py").write_text(RAY)
    (private / "__init__.py").touch()
    (private / "node.py").write_text(NODE)
    if announced is not None:
        (folder / "ray").mkdir()
        (folder / "ray" / "ray_current_cluster").write_text(announced + "\n")

    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {"PYTHONPATH": f"{module}:{ROOT}", "HOME": str(folder)}
    environment |= {"RAY_TMPDIR": str(folder), **variables}
    process = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    result["log"] = process.stderr.splitlines()
    return result


class _Head(grpc.GenericRpcHandler):  # type: ignore[misc]  # without types
    """Answers every request that has the token."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def service(self, call: Any) -> Any:
        header = dict(call.invocation_metadata).get("authorization")
        is_accepted = self._token is None or header == f"Bearer {self._token}"

        def answer(_request: bytes, context: Any) -> bytes:
            if not is_accepted:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def head(token: str | None = None) -> Iterator[str]:
    """Yields HOST:PORT of the head of a cluster, which needs the token, if any."""
    with ThreadPoolExecutor(1) as executor:
        server = grpc.server(executor, handlers=[_Head(token)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def closed_address() -> str:
    """Returns HOST:PORT where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
