from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input.shards import READS_AT_ONCE, list_input, plan_shards
from pipeline.records import InputFile


def write_parquet(url: str, rows: int) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"id": [f"{url[-9:]}-{row}" for row in range(rows)], "prompt": ["p"] * rows}), out
    )
    storage.overwrite(url, out.getvalue().to_pybytes())


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))


def test_folder_with_markers_and_subfolders(root: str) -> None:
    for name, rows in (
        ("b.parquet", 3),
        ("sub/a.parquet", 2),
        ("a.parquet", 4),
        ("_temporary/x.parquet", 9),
        ("sub/_temporary/x.parquet", 9),
        ("sub/.hidden/x.parquet", 9),
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


def test_glob_skips_hidden_and_empty_files_of_other_suffixes(tmp_path: Path) -> None:
    write_parquet(str(tmp_path / "part-1"), 2)
    write_parquet(str(tmp_path / "_part-1"), 9)
    (tmp_path / "part-0").write_bytes(b"")  # marks a folder in some tools
    assert [file.rows for file in list_input(str(tmp_path / "*part-*"))] == [2]
    (tmp_path / "part-0.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"part-0\.parquet is not a readable Parquet file"):
        list_input(str(tmp_path / "part-*"))


def test_limit_that_ends_with_a_file_needs_no_further_one(tmp_path: Path) -> None:
    for name in "abc":
        write_parquet(str(tmp_path / f"{name}.parquet"), 10)
    for limit, files in ((1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (99, 3)):
        assert len(list_input(str(tmp_path), limit)) == files


def test_folder_of_many_files_is_listed_completely(tmp_path: Path) -> None:
    for number in range(2 * READS_AT_ONCE + 3):
        write_parquet(str(tmp_path / f"{number:02d}.parquet"), number + 1)
    files = list_input(str(tmp_path))
    assert [file.rows for file in files] == list(range(1, 2 * READS_AT_ONCE + 4))


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


def test_missing_and_empty_inputs_are_refused(root: str) -> None:
    with pytest.raises(DatasetError, match="no input at"):
        list_input(storage.join(root, "nothing"))
    write_parquet(storage.join(root, "empty.parquet"), 0)
    with pytest.raises(DatasetError, match="has no rows"):
        list_input(root)


# -- plan ------------------------------------------------------------------------------


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


def test_plan_refuses_invalid_sizes() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        plan_shards([InputFile("f", 1, "v", 3)], 0)
