"""The driver dies at any operation of any stage, again and again.

The table is always that of an undisturbed run.

A crash is what kill -9 is to a driver: from that operation on nothing it does has an effect, not
even its clean-up.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ErrorBudgetError, InterruptedRunError, OutageError
from pipeline.input import reader
from pipeline.requests import tokenize
from pipeline.storage import local_disk
from tests.fakes import FakeReplicas
from tests.host_side import BAD_EVERY, ROWS, SHARD_ROWS, drive, rows_of, write_input
from tests.memory_s3 import MemoryS3, serve, undisturbed_call

ROOT = Path(__file__).parents[3]
SHARDS = -(-ROWS // SHARD_ROWS)


class CrashedError(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


class Life:
    """Counts the operations of a driver and ends it at one of them."""

    def __init__(self, operations: int) -> None:
        self.left, self._lock = operations, Lock()

    def step(self, *_: object) -> None:
        with self._lock:
            self.left -= 1
        if self.left < 0:
            raise CrashedError


def counted(patch: pytest.MonkeyPatch, life: Life, owner: Any, name: str) -> None:
    """Makes `owner.name` a crash point: `life` may end before it, or after it has taken effect."""
    original = getattr(owner, name)

    def counting(*args: Any, **options: Any) -> Any:
        life.step()
        result = original(*args, **options)
        life.step()
        return result

    patch.setattr(owner, name, counting)


def every_stage(patch: pytest.MonkeyPatch, life: Life) -> None:
    """Crash points in reader, tokenizer and dispatch, at every operation on the disk."""
    counted(patch, life, reader.formats, "open_cursor")
    counted(patch, life, reader, "_passthrough")
    counted(patch, life, tokenize, "_requests")
    counted(patch, life, FakeReplicas, "submit")
    counted(patch, life, FakeReplicas, "events")
    for name in ("open", "fsync", "link", "replace"):
        counted(patch, life, local_disk.os, name)
    counted(patch, life, Path, "unlink")


def attempt(
    source: Path,
    output: str,
    replicas: FakeReplicas,
    operations: int,
    prepare: Callable[..., None],
    client: storage.Client = storage.RUN_CLIENT,
) -> bool:
    """Runs a driver that dies after so many operations.

    Returns whether it came to its end before.
    """
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, Life(operations))
        try:
            for _ in drive(source, output, replicas, client=client):
                continue
        except CrashedError:
            return False
    return True


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_input(tmp_path_factory.mktemp("input") / "prompts.parquet")


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("undisturbed")
    assert len(list(drive(source, str(output), FakeReplicas(1)))) == SHARDS
    rows = rows_of(str(output))
    expected = [
        (f"r{row}", sample) for row in range(ROWS) for sample in range(2 if row % BAD_EVERY else 1)
    ]
    assert [(row["id"], row["sample_index"]) for row in rows] == expected
    return json.dumps(rows)


LIVES = st.lists(st.integers(0, 420), min_size=1, max_size=6)


@pytest.mark.slow
def test_crashes_on_disk_do_not_change_the_output(
    source: Path, undisturbed: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen = {"crashes": 0, "kept": 0, "aside": 0}

    @settings(max_examples=40, deadline=None)
    @given(LIVES, st.integers(1, 4), st.integers(0, 999))
    @example([271], 2, 0)  # between the link of _SUCCESS and the removal of what was written aside
    def check(lives: list[int], count: int, seed: int) -> None:
        output = tmp_path_factory.mktemp("crashed")
        for number, operations in enumerate(lives):
            done = attempt(
                source,
                str(output),
                FakeReplicas(count, seed + number, bad_luck=0.03),
                operations,
                every_stage,
            )
            seen["crashes"] += not done
            parts = sorted((output / "data").glob("part-*.parquet"))
            seen["kept"] += bool(parts) and not done
            seen["aside"] += bool(list(output.rglob(".*.aside")))
            rows = rows_of(str(output)) if parts else []
            assert len({(row["id"], row["sample_index"]) for row in rows}) == len(rows), (
                "a row is there twice"
            )
            if (output / "_SUCCESS").exists():
                assert json.dumps(rows) == undisturbed
        list(drive(source, str(output), FakeReplicas(count, seed)))
        assert json.dumps(rows_of(str(output))) == undisturbed
        visible = sorted(path.name for path in output.rglob("*"))
        assert visible == sorted(
            [
                "_SUCCESS",
                "data",
                "run.json",
                *(f"part-{number:05d}.parquet" for number in range(SHARDS)),
            ]
        )
        assert list(drive(source, str(output), FakeReplicas(1))) == [], "a finished run is a no-op"

    check()
    assert all(seen.values()), seen  # the crashes fell where something was at stake


@pytest.mark.slow
def test_crashes_on_object_storage_do_not_change_the_output(source: Path, undisturbed: str) -> None:
    seen = {"crashes": 0, "kept": 0, "outages": 0}

    @settings(max_examples=40, deadline=None)
    @given(LIVES, st.lists(st.booleans(), min_size=30, max_size=30), st.integers(0, 999))
    @example([80], [True] * 30, 0)  # after some parts are committed
    def check(lives: list[int], weather: list[bool], seed: int) -> None:
        store, storms = MemoryS3(), iter(())
        for number, operations in enumerate(lives):
            life, storms = Life(operations), iter(weather[number:])

            def at(operation: str, when: str, life: Life = life, storms: Any = storms) -> None:
                life.step()
                if operation in ("put", "get") and next(storms, False):
                    seen["outages"] += 1
                    # after a put: its answer is lost
                    raise ConnectionResetError(104, "Connection reset by peer")

            def prepare(patch: pytest.MonkeyPatch, life: Life, at: Any = at) -> None:
                store.at = at
                serve(store, patch)
                counted(patch, life, FakeReplicas, "events")

            done = attempt(
                source,
                "s3://bucket/run",
                FakeReplicas(2, seed + number, bad_luck=0.03),
                operations,
                prepare,
                storage.Client(storage.RetryPolicy(300.0, first_pause_s=0.0)),
            )
            seen["crashes"] += not done
            seen["kept"] += any("part-" in name for name in store.objects) and not done
        store.at = undisturbed_call
        with pytest.MonkeyPatch.context() as patch:
            url = serve(store, patch)
            list(drive(source, url, FakeReplicas(2, seed)))
            assert json.dumps(rows_of(url)) == undisturbed
        names = [
            "_SUCCESS",
            *(f"data/part-{number:05d}.parquet" for number in range(SHARDS)),
            "run.json",
        ]
        assert sorted(store.objects) == [f"bucket/run/{name}" for name in names]

    check()
    assert all(seen.values()), seen


def test_permanent_outage_keeps_committed_shards(
    source: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = iter(range(1000))
    is_over = False

    def at(operation: str, when: str) -> None:
        is_put = operation == "put" and when == "before"
        if is_put and not is_over and next(puts) >= 5:  # run.json, its check, and three parts
            raise OSError(16, "Please reduce your request rate")

    store = MemoryS3(at)
    url = serve(store, monkeypatch)
    client = storage.Client(storage.RetryPolicy(0.1, first_pause_s=0.01))
    with pytest.raises(
        OutageError, match=r"cannot create s3://bucket/run/data/part-.*: the endpoint is overloaded"
    ) as told:
        list(drive(source, url, FakeReplicas(2), client=client))
    assert len(str(told.value).splitlines()) == 1
    assert len([name for name in store.objects if "part-" in name]) == 3
    is_over = True
    list(drive(source, url, FakeReplicas(2)))
    assert json.dumps(rows_of(url)) == undisturbed


def test_early_stops_keep_committed_shards(source: Path, undisturbed: str, tmp_path: Path) -> None:
    """Over the error budget, and interrupted."""
    stopping = drive(
        source, str(tmp_path), FakeReplicas(1), max_error_rows=1, rows_before_early_stop=20
    )
    with pytest.raises(ErrorBudgetError, match="--max-error-rate allows"):
        list(stopping)
    kept = len(list((tmp_path / "data").glob("part-*")))
    assert 1 <= kept < SHARDS
    assert not (tmp_path / "_SUCCESS").exists()
    with pytest.raises(InterruptedRunError):
        list(drive(source, str(tmp_path), FakeReplicas(1), interrupted=lambda: True))
    assert len(list(drive(source, str(tmp_path), FakeReplicas(1)))) == SHARDS - kept
    assert json.dumps(rows_of(str(tmp_path))) == undisturbed


# -- several drivers, in processes of their own ----------------------------------------


def start(source: Path, output: Path, partition: str, *more: object) -> subprocess.Popen[str]:
    arguments = [str(each) for each in (source, output, partition, *more)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.host_side", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def published(*drivers: subprocess.Popen[str]) -> list[list[int]]:
    """Waits for drivers; returns which shards each has published."""
    found = []
    for driver in drivers:
        out, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err
        found.append([int(line) for line in out.split() if line != "started"])
    return found


@pytest.mark.slow
def test_two_drivers_in_one_run_folder_publish_each_shard_once(
    source: Path, undisturbed: str, tmp_path: Path
) -> None:
    """A retried job whose predecessor still lives."""
    one, other = published(*(start(source, tmp_path, "0/1", seed, 0.02) for seed in (1, 2)))
    assert sorted(one + other) == list(range(SHARDS))
    assert json.dumps(rows_of(str(tmp_path))) == undisturbed
    assert (tmp_path / "_SUCCESS").exists()


@pytest.mark.slow
def test_partitions_share_a_run_folder_and_the_last_one_finishes(
    source: Path, undisturbed: str, tmp_path: Path
) -> None:
    drivers = [
        start(source, tmp_path, f"{index}/3", index, 0.0 if index == 1 else 0.02)
        for index in range(3)
    ]
    found = published(*drivers)
    assert found == [sorted(found[index], key=found[index].index) for index in range(3)]
    assert [sorted(shards) for shards in found] == [
        list(range(index, SHARDS, 3)) for index in range(3)
    ]
    assert json.dumps(rows_of(str(tmp_path))) == undisturbed
    assert [path.name for path in tmp_path.glob("_*")] == ["_SUCCESS"]
    assert (tmp_path / "_SUCCESS").stat().st_mtime >= max(
        part.stat().st_mtime for part in (tmp_path / "data").iterdir()
    )


@pytest.mark.slow
def test_partition_of_a_killed_driver_is_finished_later(
    source: Path, undisturbed: str, tmp_path: Path
) -> None:
    doomed = start(source, tmp_path, "0/2", 1, 0.05)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").glob("part-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    doomed.kill()
    doomed.communicate()
    published(start(source, tmp_path, "1/2", 2))
    assert not (tmp_path / "_SUCCESS").exists()
    [rest] = published(start(source, tmp_path, "0/2", 3))
    assert 0 < len(rest) < SHARDS
    assert json.dumps(rows_of(str(tmp_path))) == undisturbed
    assert (tmp_path / "_SUCCESS").exists()
