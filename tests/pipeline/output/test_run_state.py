from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.run_folder import RunFolder
from pipeline.output.run_state import RunState, finish, partition_of, read_state, remaining
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import Shard
from tests.memory_s3 import MemoryS3, serve

SHARDS = tuple(Shard(number, "f", number * 10, 10) for number in range(6))


def write_part(
    folder: RunFolder,
    number: int,
    status: list[str],
    samples: list[int] | None = None,
    fingerprint: str = "fp",
) -> None:
    sample_index = pa.array(samples or [0] * len(status), pa.int32())
    table = pa.table({"sample_index": sample_index, "status": status})
    file = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({FINGERPRINT_KEY: fingerprint}), file)
    storage.overwrite(folder.part_url(number), file.getvalue().to_pybytes())


def numbers(shards: tuple[Shard, ...]) -> list[int]:
    return [shard.number for shard in shards]


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    root = str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))
    return RunFolder(storage.join(root, "run"))


def test_resume_subtracts_the_listing(folder: RunFolder) -> None:
    assert remaining(SHARDS, read_state(folder, SHARDS, "fp")) == SHARDS
    for number in (0, 3, 4):
        write_part(folder, number, ["ok"])
    temporary = storage.join(folder.data_url, ".part-00001.parquet.x.aside")
    storage.put_if_absent(temporary, b"a killed driver's")

    state = read_state(folder, SHARDS, "fp")
    assert state == RunState(frozenset({0, 3, 4}), finished=False, failed_rows={})
    assert numbers(remaining(SHARDS, state)) == [1, 2, 5]
    assert numbers(remaining(SHARDS, state, partition=(1, 2))) == [1, 5]
    assert numbers(tuple(state.committed_of(SHARDS))) == [0, 3, 4]
    assert not finish(folder, SHARDS, state.committed)
    assert not folder.finished()


def test_driver_that_commits_last_finishes(folder: RunFolder) -> None:
    for number in range(6):
        write_part(folder, number, ["ok"])
    for _ in range(2):
        assert finish(folder, SHARDS, read_state(folder, SHARDS, "fp").committed)
    assert folder.finished()
    state = read_state(folder, SHARDS, "fp")
    assert state.finished
    assert remaining(SHARDS, state) == ()


def test_run_with_superfluous_parts_and_one_missing_is_unfinished(
    folder: RunFolder,
) -> None:
    for missing in range(6):
        assert not finish(folder, SHARDS, frozenset(range(6)) - {missing})
    unplanned = frozenset({0, 1, 2, 3, 4, 9})
    assert not finish(folder, SHARDS, unplanned), "as many parts, and not the planned ones"
    assert not folder.finished()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.sets(st.integers(0, 19)))
def test_partitions_are_disjoint_and_complete(count: int, committed: set[int]) -> None:
    shards = [Shard(number, "f", number, 1) for number in range(20)]
    state = RunState(frozenset(committed), finished=False, failed_rows={})
    parts = [remaining(shards, state, partition=(index, count)) for index in range(count)]
    todo = sorted(shard.number for part in parts for shard in part)
    assert todo == sorted(set(range(20)) - committed)
    for index, part in enumerate(parts):
        assert all(shard.number % count == index for shard in part)
        assert list(part) == sorted(part, key=lambda shard: shard.number)


def test_failed_rows_are_those_with_a_failed_sample(folder: RunFolder) -> None:
    write_part(folder, 0, ["ok", "ok"])
    # rows 0, 1, 2 with 1, 3 and 2 samples; one sample of row 1 and both of row 2 failed
    write_part(folder, 1, ["ok", "ok", "error", "ok", "error", "error"], samples=[0, 0, 1, 2, 0, 1])
    storage.put_if_absent(folder.success_url, b"")

    state = read_state(folder, SHARDS[:3], "fp", failures_in=SHARDS[:3])
    assert state.failed_rows == {1: (1, 2)}
    assert state.failed_row_count == 2
    todo = remaining(SHARDS[:3], state, retry_failed=True)
    assert [(shard.number, shard.only) for shard in todo] == [(1, (1, 2)), (2, None)]
    assert numbers(remaining(SHARDS[:3], state)) == [2], "failures are run again on request only"


def test_failed_rows_of_many_row_groups_are_read(folder: RunFolder) -> None:
    """A part is not read if the statistics of every row group show no error."""
    status = ["ok"] * 8 + ["error", "ok"]
    table = pa.table({"sample_index": pa.array([0] * 10, pa.int32()), "status": status})
    table = table.replace_schema_metadata({FINGERPRINT_KEY: "fp"})
    for number, statistics in ((0, True), (1, False)):
        file = pa.BufferOutputStream()
        pq.write_table(table, file, row_group_size=4, write_statistics=statistics)
        storage.overwrite(folder.part_url(number), file.getvalue().to_pybytes())
    state = read_state(folder, SHARDS[:2], "fp", failures_in=SHARDS[:2])
    assert state.failed_rows == {0: (8,), 1: (8,)}


def test_failures_are_read_of_the_given_shards_only(folder: RunFolder) -> None:
    for number in range(4):
        write_part(folder, number, ["error"])
    own_shards = partition_of(SHARDS, (1, 2))
    state = read_state(folder, SHARDS, "fp", failures_in=own_shards)
    assert state.failed_rows == {1: (0,), 3: (0,)}
    assert state.committed == {0, 1, 2, 3}


def test_parts_of_another_run_are_refused(folder: RunFolder) -> None:
    write_part(folder, 2, ["ok"], fingerprint="other")
    with pytest.raises(
        ConfigError,
        match=r"part-00002\.parquet was written by a run with fingerprint other, expected mine",
    ):
        read_state(folder, SHARDS, "mine")
    with pytest.raises(
        ConfigError, match=r"part-00002\.parquet does not belong to this run of 1 shards"
    ):
        read_state(folder, SHARDS[:1], "other")


def test_parts_are_checked_before_their_failures_are_read(folder: RunFolder) -> None:
    write_part(folder, 0, ["ok"])
    write_part(folder, 3, ["error"], fingerprint="other")
    assert read_state(folder, SHARDS, "fp").committed == {0, 3}
    with pytest.raises(ConfigError, match=r"part-00003\.parquet was written by a run"):
        read_state(folder, SHARDS, "fp", failures_in=SHARDS)


def test_damaged_part_is_named(folder: RunFolder) -> None:
    storage.put_if_absent(folder.part_url(1), b"PAR1 and no more")
    with pytest.raises(DatasetError, match=r"part-00001\.parquet is not a readable Parquet file"):
        read_state(folder, SHARDS, "fp")


def test_state_costs_one_listing_and_one_footer(monkeypatch: pytest.MonkeyPatch) -> None:
    operations: list[str] = []
    store = MemoryS3()
    folder = RunFolder(serve(store, monkeypatch))
    for number in range(6):
        write_part(folder, number, ["ok"])

    store.at = lambda operation, when: operations.append(operation)
    read_state(folder, SHARDS, "fp")
    assert operations.count("list") == 1
    # the footer of one part: its length, then itself
    assert operations.count("get") <= 2

    finish(folder, SHARDS, frozenset(range(6)))
    operations.clear()
    assert read_state(folder, SHARDS, "fp").finished
    assert operations.count("list") == 1
    assert operations.count("get") <= 2


def test_state_of_a_finished_run_lacks_removed_parts(folder: RunFolder) -> None:
    for number in (0, 1, 2, 4):
        write_part(folder, number, ["ok"])
    storage.put_if_absent(folder.success_url, b"")
    state = read_state(folder, SHARDS, "fp")
    assert state.finished
    assert numbers(remaining(SHARDS, state)) == [3, 5]


def test_leftovers_of_a_killed_driver_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    (tmp_path / "data").mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    leftovers = [
        tmp_path / f".run.json.{boot}.1.aside",
        tmp_path / "data" / f".part-00000.parquet.{boot}.2.aside",
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"x")
    folder.remove_abandoned()
    assert [leftover.exists() for leftover in leftovers] == [False, False]
