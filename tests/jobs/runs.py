"""Runs of the main job as a user starts them, and their tables, for the tests of this folder."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq

from tests import shared_ray
from tests.shared_ray import RAY_SETTINGS

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "tests" / "data" / "conformance"
DEMO = ROOT / "jobs" / "demo"
UNSTABLE = ["cached_tokens"]  # depends on who was computed before in the same replica

PROBE = """
import runpy, sys
code = 0
try:
    runpy.run_path("jobs/score_dataset.py", run_name="__main__")
except SystemExit as ended:
    code = ended.code
assert "jax" not in sys.modules, "the driver imported jax"
sys.exit(code)
"""


def command(*arguments: object) -> list[str]:
    """Returns the command line of a job that also checks that the driver never imports JAX."""
    return [sys.executable, "-c", PROBE, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Returns a user's environment: the job's own Ray, and none of the tests' JAX settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "JAX_NUMPY", "XLA_FLAGS"))
    }
    return kept | RAY_SETTINGS | {"RAY_ADDRESS": "local"} | more


def job(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the job to its end.

    It runs on the Ray that all tests of this process share. With variables of its own, or an S3
    endpoint, it has a Ray of its own: workers inherit the variables that their Ray started with.
    """
    has_own_ray = bool(more) or "AWS_ENDPOINT_URL" in os.environ
    variables = environment(**more) if has_own_ray else environment(**shared_ray.environment())
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def table(output: Path | str) -> pa.Table:
    """Returns the rows of a run folder on disk, parts in order."""
    parts = sorted((Path(output) / "data").glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts)


def same_tables(one: pa.Table, other: pa.Table, tolerance: float = 1e-4) -> None:
    """Asserts that two runs have equal rows, log-probs within `tolerance` per token."""
    one, other = one.drop_columns(UNSTABLE), other.drop_columns(UNSTABLE)
    assert one.schema.names == other.schema.names
    assert one.num_rows == other.num_rows
    for name in one.schema.names:
        for row, (mine, theirs) in enumerate(
            zip(one[name].to_pylist(), other[name].to_pylist(), strict=True)
        ):
            assert _close(mine, theirs, tolerance), (
                f"column {name}, row {row}: {mine!r} and {theirs!r}"
            )


def _close(mine: Any, theirs: Any, tolerance: float) -> bool:
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(
            _close(a, b, tolerance) for a, b in zip(mine, theirs, strict=True)
        )
    if isinstance(mine, float) and isinstance(theirs, float):
        return abs(mine - theirs) <= tolerance * max(1.0, abs(mine) / 10)
    return bool(mine == theirs)


def conformance_flags(case: str = "mha") -> list[object]:
    """Returns the flags that select a conformance checkpoint in float32 on one device."""
    return [
        "--model",
        CONFORMANCE / case / "config.json",
        "--checkpoint",
        CONFORMANCE / case / "ckpt-0",
        "--dtype",
        "float32",
        "--mesh",
        "1x1",
    ]


def report(output: Path) -> dict[str, Any]:
    """Returns report.json of a run folder on disk."""
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


@dataclass
class Running:
    """A job in a session of its own."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def wait_for_text(self, text: str) -> None:
        self.wait_until(lambda: text in self.log.read_text(), text)

    def wait_for_parts(self, count: int) -> None:
        self.wait_until(lambda: len(self.parts()) >= count, f"{count} committed shards")

    def parts(self) -> list[Path]:
        return sorted((self.output / "data").glob("part-*"))

    def replicas(self) -> list[int]:
        """Process ids of its actors."""
        return [
            pid
            for pid, name in descendants(self.process.pid)
            if "ray::" in name and "RemoteReplica" in name
        ]

    def stop_replica(self, parts: int) -> None:
        """Sends SIGSTOP to the only actor, in mid-run, once `shards` shards are committed."""
        self.wait_until(lambda: len(self.replicas()) == 1, "replica")
        (replica,) = self.replicas()
        self.wait_for_parts(parts)
        os.kill(replica, signal.SIGSTOP)

    def kill_ray(self, name: str) -> None:
        """kill -9 of a server of the job's own Ray: `gcs_server` or `raylet`."""
        (pid,) = [
            pid
            for pid, line in descendants(self.process.pid)
            if line.split(" ")[0].endswith(f"/{name}")
        ]
        os.kill(pid, signal.SIGKILL)

    def end(self, code: int) -> str:
        """Waits for the end and returns what was said."""
        found = self.process.wait(120)
        said = self.log.read_text()
        assert found == code, said
        return said

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
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
                yield (
                    child,
                    Path(f"/proc/{child}/cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode(errors="replace"),
                )
                yield from descendants(child)


@contextlib.contextmanager
def running(
    flags: list[object], tmp_path: Path, *, program: list[str] | None = None, **more: str
) -> Iterator[Running]:
    """Starts the job, or another program, in the background; ends what is left of it."""
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            program or command(*flags),
            cwd=ROOT,
            env=environment(**more),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Running(process, tmp_path / "out", log)
    finally:
        below = [pid for pid, _ in descendants(process.pid)]
        for pid in (process.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
