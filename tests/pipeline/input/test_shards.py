"""pipeline/input/shards.py and pipeline/output/run_folder.py: list, plan, subtract.

The same run or another one.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input.shards import finish, list_input, plan_shards, remaining
from pipeline.output.run_folder import RunFolder, check_part, check_run, fingerprint, input_keys
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import InputFile, Shard


def write_parquet(url: str, rows: int) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"id": [f"{url[-9:]}-{row}" for row in range(rows)], "prompt": ["p"] * rows}), out
    )
    storage.overwrite(url, out.getvalue().to_pybytes())


def write_part(
    folder: RunFolder, number: int, mark: str, status: list[str], samples: list[int] | None = None
) -> None:
    table = pa.table(
        {"sample_index": pa.array(samples or [0] * len(status), pa.int32()), "status": status}
    )
    out = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({FINGERPRINT_KEY: mark}), out)
    storage.overwrite(folder.part_url(number), out.getvalue().to_pybytes())


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))


# -- list_input -------------------------------------------------------------------------------------------------------------


def test_folder_with_markers_and_subfolders(root: str) -> None:
    for name, rows in (
        ("b.parquet", 3),
        ("sub/a.parquet", 2),
        ("a.parquet", 4),
        ("_temporary/x.parquet", 9),
        (".hidden.parquet", 9),
    ):
        write_parquet(storage.join(root, name), rows)
    for name in ("_SUCCESS", "README.md", "marker"):
        storage.put_if_absent(storage.join(root, name), b"")
    files = list_input(root + "/")
    base = storage.canonical(root)
    assert [(file.url, file.rows) for file in files] == [
        (f"{base}/a.parquet", 4),
        (f"{base}/b.parquet", 3),
        (f"{base}/sub/a.parquet", 2),
    ]
    assert all(file.size > 0 and file.version for file in files)


def test_glob_and_single_file(root: str) -> None:
    for name, rows in (
        ("test-0.parquet", 1),
        ("test-1.parquet", 2),
        ("train-0.parquet", 3),
        ("named-oddly", 4),
    ):
        write_parquet(storage.join(root, name), rows)
    assert [file.rows for file in list_input(storage.join(root, "test-*.parquet"))] == [1, 2]
    assert [file.rows for file in list_input(storage.join(root, "named-oddly"))] == [4]


def test_jsonl_lines_are_counted(root: str) -> None:
    storage.put_if_absent(
        storage.join(root, "rows.jsonl"), b'{"prompt": "a"}\n\n{"prompt": "b"}\n   \nnot json'
    )
    assert [file.rows for file in list_input(root)] == [3]


def test_limit_opens_only_what_is_needed(tmp_path: Path) -> None:
    for number in range(40):
        write_parquet(str(tmp_path / f"{number:02d}.parquet"), 10)
    (tmp_path / "39.parquet").write_bytes(b"damaged, and never opened")
    assert [file.url[-10:] for file in list_input(str(tmp_path), limit=15)] == [
        "00.parquet",
        "01.parquet",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1 is not enough", b"PAR1" + b"\x00" * 100 + b"\xff\xff\x00\x00PAR1"]
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_parquet(str(tmp_path / "good.parquet"), 2)
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.parquet is not a readable Parquet file"):
        list_input(str(tmp_path))


def test_nothing_there_and_nothing_in_it(root: str) -> None:
    with pytest.raises(DatasetError, match="no input at"):
        list_input(storage.join(root, "nothing"))
    write_parquet(storage.join(root, "empty.parquet"), 0)
    with pytest.raises(DatasetError, match="has no rows"):
        list_input(root)


# -- plan -------------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6),
    st.integers(1, 20),
    st.none() | st.integers(1, 200),
)
def test_plan_covers_each_row_once_in_order(
    rows: list[int], shard_rows: int, limit: int | None
) -> None:
    files = [InputFile(f"f{index}", 1, "v", count) for index, count in enumerate(rows)]
    shards = plan_shards(files, shard_rows, limit)
    everything = [(file.url, row) for file in files for row in range(file.rows)]
    assert [(s.url, s.first_row + row) for s in shards for row in range(s.rows)] == everything[
        :limit
    ]
    assert [s.number for s in shards] == list(range(len(shards)))
    assert all(1 <= s.rows <= shard_rows for s in shards)


def test_plan_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        plan_shards([InputFile("f", 1, "v", 3)], 0)


# -- remaining and finish -----------------------------------------------------------------------------------------------------

SHARDS = tuple(Shard(number, "f", number * 10, 10) for number in range(6))


def test_resume_subtracts_the_listing(root: str) -> None:
    folder = RunFolder(storage.join(root, "run"))
    assert remaining(SHARDS, folder, "fp") == SHARDS
    for number in (0, 3, 4):
        write_part(folder, number, "fp", ["ok"])
    storage.put_if_absent(
        storage.join(folder.data_url, ".part-00001.parquet.x.aside"), b"a killed driver's"
    )
    assert [shard.number for shard in remaining(SHARDS, folder, "fp")] == [1, 2, 5]
    assert [shard.number for shard in remaining(SHARDS, folder, "fp", partition=(1, 2))] == [1, 5]
    assert not finish(folder, SHARDS)
    assert not folder.finished()


def test_last_one_finishes(root: str) -> None:
    folder = RunFolder(storage.join(root, "run"))
    for number in range(6):
        write_part(folder, number, "fp", ["ok"])
    assert finish(folder, SHARDS)
    assert finish(folder, SHARDS)
    assert folder.finished()
    assert remaining(SHARDS, folder, "fp") == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.sets(st.integers(0, 19)))
def test_partitions_are_disjoint_and_complete(
    tmp_path_factory: pytest.TempPathFactory, count: int, committed: set[int]
) -> None:
    class Listed(RunFolder):
        def committed(self) -> frozenset[int]:
            return frozenset(committed)

    folder = Listed(str(tmp_path_factory.getbasetemp() / "partitions"))
    for number in committed:
        write_part(folder, number, "fp", ["ok"])
    shards = [Shard(number, "f", number, 1) for number in range(20)]
    parts = [remaining(shards, folder, "fp", partition=(index, count)) for index in range(count)]
    assert sorted(shard.number for part in parts for shard in part) == sorted(
        set(range(20)) - committed
    )


def test_retry_failed_names_the_rows(root: str) -> None:
    folder = RunFolder(storage.join(root, "run"))
    write_part(folder, 0, "fp", ["ok", "ok"])
    # rows 0, 1, 2 with 1, 3 and 2 samples; one sample of row 1 and both of row 2 failed
    write_part(
        folder, 1, "fp", ["ok", "ok", "error", "ok", "error", "error"], samples=[0, 0, 1, 2, 0, 1]
    )
    storage.put_if_absent(folder.success_url, b"")
    todo = remaining(SHARDS[:3], folder, "fp", retry_failed=True)
    assert [(shard.number, shard.only) for shard in todo] == [(1, (1, 2)), (2, None)]
    assert remaining(SHARDS[:3], folder, "fp") == ()


def test_parts_of_another_run_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    write_part(folder, 2, "other", ["ok"])
    with pytest.raises(
        ConfigError,
        match=r"part-00002\.parquet was written by a run with fingerprint other, expected mine",
    ):
        remaining(SHARDS, folder, "mine")
    check_part(folder, 2, "other")
    with pytest.raises(
        ConfigError, match=r"part-00002\.parquet does not belong to this run of 1 shards"
    ):
        remaining(SHARDS[:1], folder, "other")


# -- check_run ----------------------------------------------------------------------------------------------------------------

KEYS = {
    "model": "demo",
    "sampling": {"temperature": 0.0, "seed": 1},
    "input": [["a.parquet", 10, "v1", 5]],
}


def test_first_run_writes_run_json_and_the_next_agrees(root: str) -> None:
    folder = RunFolder(storage.join(root, "run"))
    assert not check_run(folder, KEYS, {"version": "0.1.0"})
    stored = json.loads(storage.read(folder.run_url)[0])
    assert stored == {
        "version": "0.1.0",
        "fingerprint": fingerprint(KEYS),
        "fingerprint_keys": KEYS,
    }
    assert check_run(folder, dict(reversed(KEYS.items())), {"version": "0.2.0"})
    assert json.loads(storage.read(folder.run_url)[0]) == stored


def test_another_configuration_is_refused_with_every_key_named(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    check_run(folder, KEYS, {})
    other = {
        **KEYS,
        "model": "grok-1",
        "sampling": {"temperature": 0.7, "seed": 1},
        "task": "score",
    }
    with pytest.raises(ConfigError) as caught:
        check_run(folder, other, {})
    message = str(caught.value)
    for part in (
        'model was "demo", is "grok-1"',
        "sampling.temperature was 0.0, is 0.7",
        'task was null, is "score"',
        str(tmp_path),
    ):
        assert part in message
    assert "seed" not in message


def test_long_listings_are_named_by_their_first_difference(tmp_path: Path) -> None:
    files = [InputFile(f"/data/part-{number}.parquet", 10, "v1", 5) for number in range(100)]
    folder = RunFolder(str(tmp_path))
    check_run(folder, {"input": input_keys(files)}, {})
    changed = [*files[:7], InputFile(files[7].url, 10, "v2", 5), *files[8:]]
    with pytest.raises(
        ConfigError, match=r'input\[7\] was \["/data/part-7.parquet",10,"v1",5\], is .*"v2"'
    ):
        check_run(folder, {"input": input_keys(changed)}, {})
    with pytest.raises(ConfigError, match=r"input had 100 entries .*part-99.*has 99"):
        check_run(folder, {"input": input_keys(files[:99])}, {})


def test_resume_modes(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="--resume require"):
        check_run(folder, KEYS, {}, resume="require")
    assert not check_run(folder, KEYS, {}, resume="never")
    with pytest.raises(ConfigError, match="--resume never"):
        check_run(folder, KEYS, {}, resume="never")
    assert check_run(folder, KEYS, {}, resume="require")


def test_damaged_run_json(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"run\.json is not a run description"):
        check_run(RunFolder(str(tmp_path)), KEYS, {})


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1))
def test_fingerprint_ignores_order_only(keys: dict[str, object]) -> None:
    assert fingerprint(dict(reversed(keys.items()))) == fingerprint(keys)
    name = next(iter(keys))
    assert fingerprint({**keys, name: [keys[name]]}) != fingerprint(keys)
