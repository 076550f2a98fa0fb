"""The whole job on real Ray, killed or cut off from its storage: the output never changes."""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.poisoned_job import POISON
from tests.jobs.runs import (
    CONFORMANCE,
    Running,
    conformance_flags,
    job,
    report,
    running,
    same_tables,
    table,
)
from tests.s3 import S3Faults

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
ROWS, SHARD_ROWS, POISONED_ROW = 240, 8, 203
SHARDS = ROWS // SHARD_ROWS
SMALL = ["--batch-tokens", 64]  # many batches: something is at stake at any moment
INTERRUPTED = "committed shards are kept, the same command continues the run"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of random ids, greedy and sampled; one of them is poison for those who know it."""
    rng = np.random.default_rng(12)
    ids = [rng.integers(9, 512, rng.integers(1, 30)).tolist() for _ in range(ROWS)]
    ids[POISONED_ROW] = POISON
    columns = {
        "id": [f"row {row}" for row in range(ROWS)],
        "prompt_token_ids": ids,
        "temperature": [0.0 if row % 2 else 0.9 for row in range(ROWS)],
    }
    path = tmp_path_factory.mktemp("disturbances") / "in.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def flags() -> list[object]:
    return [*conformance_flags(), "--max-tokens", 16, "--max-len", 64, "--shard-rows", SHARD_ROWS]


@pytest.fixture(scope="module")
def undisturbed(prompts: Path, flags: list[object]) -> pa.Table:
    done = job("-i", prompts, *flags, "-o", prompts.parent / "undisturbed")
    assert done.returncode == 0, done.stderr
    return table(prompts.parent / "undisturbed")


def stop_at(run: Running, parts: int) -> None:
    """Stops the replica once so many shards are committed, and makes sure that more are to come."""
    run.stop_replica(parts)
    assert len(run.parts()) < SHARDS, "the run was over before it could be disturbed"


def test_lost_head_and_killed_driver_do_not_change_output(
    prompts: Path, flags: list[object], undisturbed: pa.Table, tmp_path: Path
) -> None:
    """kill -9 of the GCS; the same command, kill -9 of the driver; the same command."""
    flags = ["-i", prompts, *flags, "-o", tmp_path / "out"]
    # Ray itself ends a process whose head is silent for so long; the job ends in order after a
    # quarter of it.
    with running([*flags, *SMALL], tmp_path, RAY_gcs_rpc_server_reconnect_timeout_s="40") as run:
        stop_at(run, 2)
        run.kill_ray("gcs_server")
        said = run.end(75)
        last = said.splitlines()[-1]
        assert last.startswith("interrupted: the head of the Ray cluster has not answered for"), (
            said
        )
        assert INTERRUPTED in last
        assert "Traceback" not in said
        kept = committed(run)
        assert report(run.output)["rows"]["shards_committed"] == len(kept)
        assert report(run.output)["status"] == "interrupted"
    with running([*flags, *SMALL], tmp_path) as run:
        stop_at(run, len(kept) + 2)
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        assert committed(run).items() >= kept.items(), "a committed shard was written again"
        kept = committed(run)
    continued = job(*flags)
    assert continued.returncode == 0, continued.stderr
    assert f"{len(kept)} of {SHARDS} shards are committed already" in continued.stdout
    assert committed(run).items() >= kept.items(), "a committed shard was written again"
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == [], (
        "what was left aside is gone"
    )
    same_tables(undisturbed, table(tmp_path / "out"), tolerance=0.0)


def committed(run: Running) -> dict[str, int]:
    assert not (run.output / "_SUCCESS").exists() or len(run.parts()) == SHARDS
    return {part.name: part.stat().st_mtime_ns for part in run.parts()}


@pytest.mark.s3
def test_storage_outages_and_replica_losses_on_s3(
    prompts: Path,
    flags: list[object],
    undisturbed: pa.Table,
    tmp_path: Path,
    s3_url: str,
    s3_faults: S3Faults,
) -> None:
    """Input, checkpoint and output on S3.

    First, half of the shards may not be written; later they may, and the storms go on.
    """
    remote = fsspec.filesystem("s3", skip_instance_cache=True)
    remote.put(str(prompts), f"{s3_url}/in/prompts.parquet")
    remote.put(str(CONFORMANCE / "mha" / "ckpt-0"), f"{s3_url}/ckpt-0", recursive=True)
    flags = [
        "-i",
        f"{s3_url}/in",
        *flags,
        "--checkpoint",
        f"{s3_url}/ckpt-0",
        "-o",
        f"{s3_url}/out",
    ]
    s3_faults.slow_s = 0.5
    s3_faults.next = [
        "pass",
        "503",
        "503",
        "pass",
        "reset",
        "pass",
        "slow",
        "pass",
        "truncate",
        "drop",
        "pass",
    ] * 30
    s3_faults.rule = lambda method, path: (
        "403" if method == "PUT" and part_number(path) >= SHARDS // 2 else None
    )
    refused = job(*flags)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"error: cannot create {s3_url}/out/data/part-000"), refused.stderr
    assert "permission denied" in last
    assert "Traceback" not in refused.stderr
    kept = parts_of(s3_url, s3_faults)
    assert 0 < len(kept) <= SHARDS // 2

    s3_faults.rule = lambda method, path: None
    s3_faults.next = [
        "pass",
        "lose the answer",
        "503",
        "pass",
        "truncate",
        "slow",
        "pass",
        "reset",
        "503",
        "503",
    ] * 30
    program = [
        sys.executable,
        "-m",
        "tests.end_to_end.poisoned_job",
        *map(str, flags),
        "--replicas",
        "2",
        *map(str, SMALL),
    ]
    with running([], tmp_path, program=program) as run:
        run.wait_until(
            lambda: len(run.replicas()) == 2 and len(parts_of(s3_url, s3_faults)) > len(kept),
            "a new part",
        )
        # The poisoned row may have killed both a moment ago: then one of their successors.
        run.wait_until(lambda: kill_replica(run), "replica to kill")
        s3_faults.always = "drop"  # what is connected
        s3_faults.refuse()  # and what would connect
        time.sleep(3)
        s3_faults.always = None
        s3_faults.serve()
        said = run.end(3)
    assert "replica-0 is lost" in said or "replica-1 is lost" in said
    s3_faults.next = []
    assert parts_of(s3_url, s3_faults).items() >= kept.items(), (
        "a committed shard was written again"
    )
    again = job(*flags)
    assert (again.returncode, "nothing to do" in again.stdout) == (3, True), again.stderr
    fsspec.filesystem("s3", skip_instance_cache=True).get(
        f"{s3_url}/out", str(tmp_path / "fetched"), recursive=True
    )
    rows, expected = table(tmp_path / "fetched"), undisturbed
    poisoned = rows.slice(POISONED_ROW, 1).to_pylist()[0]
    assert (poisoned["id"], poisoned["status"], poisoned["error_code"]) == (
        f"row {POISONED_ROW}",
        "error",
        "engine_crash",
    )
    assert "took its replica down" in poisoned["error_message"]
    others = [row for row in range(ROWS) if row != POISONED_ROW]
    same_tables(expected.take(others), rows.take(others))
    lost = [
        replica["lost"] for replica in report(tmp_path / "fetched")["replicas"] if replica["lost"]
    ]
    # three tries of the row, of which the kill may be one, and halving
    assert 3 <= len(lost) <= 7, lost
    shutil.rmtree(tmp_path / "fetched")
    seen = {fault for _, _, fault in s3_faults.requests}
    assert seen >= {"503", "reset", "slow", "truncate", "drop", "lose the answer", "403"}


def kill_replica(run: Running) -> bool:
    """Kills a replica; returns whether there was one."""
    for pid in run.replicas():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def part_number(path: str) -> int:
    _, found, number = path.partition("/data/part-")
    return int(number.split(".")[0]) if found else -1


def parts_of(s3_url: str, faults: S3Faults) -> dict[str, str]:
    """Part → ETag, as the server itself says."""
    direct = fsspec.filesystem("s3", endpoint_url=faults.endpoint, skip_instance_cache=True)
    return {
        path: each["ETag"] for path, each in direct.find(f"{s3_url}/out/data", detail=True).items()
    }
