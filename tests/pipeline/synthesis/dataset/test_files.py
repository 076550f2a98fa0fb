from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.dataset.files import DataFiles, GroupSize, WrittenFile

_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("id", pa.int64()),
    ("topic", pa.string()),
    ("text", pa.string()),
]
SCHEMA = pa.schema(_COLUMNS)


def table(ids: range, topics: list[str | None] | None = None) -> pa.Table:
    chosen = topics or ["t"]
    texts = [f"text {number} " * (number % 7) for number in ids]
    return pa.table(
        [list(ids), [chosen[number % len(chosen)] for number in ids], texts], schema=SCHEMA
    )


def write(
    root: Path,
    chunks: list[pa.Table],
    target: int = 10**9,
    by: tuple[str, ...] = (),
    **options: Any,
) -> list[WrittenFile]:
    writer = DataFiles(str(root), "data", "train", SCHEMA, target, by, **options)
    for chunk in chunks:
        writer.add(chunk)
    return writer.close()


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_data_files_have_target_size_and_rows_in_order(
    tmp_path: Path,
) -> None:
    chunks = [table(range(start, start + 37)) for start in range(0, 37 * 50, 37)]
    written = write(tmp_path, chunks, target=4000, group_size=GroupSize(rows=100))
    assert [file.path for file in written] == [
        f"data/train-{number:05d}.parquet" for number in range(len(written))
    ]
    assert len(written) > 3
    assert all(4000 <= file.size < 8000 for file in written[:-1])
    assert [file.size for file in written] == [
        (tmp_path / file.path).stat().st_size for file in written
    ]
    found = [pq.read_table(tmp_path / file.path) for file in written]
    assert [each.num_rows for each in found] == [file.rows for file in written]
    assert pa.concat_tables(found).equals(table(range(37 * 50)))
    assert {
        pq.ParquetFile(tmp_path / file.path).metadata.row_group(0).num_rows for file in written
    } == {100}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 40), max_size=12), st.sampled_from([1, 2000, 10**9]), st.booleans())
def test_data_files_do_not_depend_on_chunks_of_rows(
    cuts: list[int], target: int, divided: bool
) -> None:
    import tempfile

    by = ("topic",) if divided else ()
    total, starts = sum(cuts), [sum(cuts[:place]) for place in range(len(cuts))]
    topics: list[str | None] = ["a", None, "b c", "ä/ö"]
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
    ):
        small = GroupSize(rows=16)
        write(
            Path(one),
            [
                table(range(start, start + cut), topics)
                for start, cut in zip(starts, cuts, strict=True)
            ],
            target,
            by,
            group_size=small,
        )
        write(Path(other), [table(range(total), topics)], target, by, group_size=small)
        assert contents(Path(one)) == contents(Path(other))
        if divided and total:
            found = (
                ds.dataset(f"{one}/data", partitioning="hive")
                .to_table()
                .select(SCHEMA.names)
                .sort_by("id")
            )
            assert found.cast(SCHEMA).equals(table(range(total), topics))


def test_data_files_put_partition_columns_into_paths(tmp_path: Path) -> None:
    topics: list[str | None] = ["sums", "../up", "a=b/c", None, ".", "ü%41"]
    written = write(tmp_path, [table(range(12), topics)], by=("topic",))
    assert sorted(file.path for file in written) == [
        "data/topic=%C3%BC%2541/train-00000.parquet",
        "data/topic=..%2Fup/train-00000.parquet",
        "data/topic=./train-00000.parquet",
        "data/topic=__HIVE_DEFAULT_PARTITION__/train-00000.parquet",
        "data/topic=a%3Db%2Fc/train-00000.parquet",
        "data/topic=sums/train-00000.parquet",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert pq.read_schema(tmp_path / "data" / "topic=sums" / "train-00000.parquet").names == [
        "id",
        "text",
    ]


def test_data_files_without_rows_are_one_empty_file(tmp_path: Path) -> None:
    (file,) = write(tmp_path, [])
    assert (file.rows, pq.read_schema(tmp_path / file.path).names) == (0, SCHEMA.names)
    assert write(tmp_path / "p", [], by=("topic",)) == []


@pytest.mark.parametrize(("target", "group_bytes"), [(1000, 2000), (4000, 100)])
def test_data_files_bound_memory_of_open_files(
    tmp_path: Path, target: int, group_bytes: int
) -> None:
    group_size = GroupSize(size_bytes=group_bytes)
    writer = DataFiles(str(tmp_path), "data", "train", SCHEMA, target, ("topic",), group_size)
    topics: list[str | None] = [f"t{n}" for n in range(50)]
    largest = 0
    for start in range(0, 4000, 100):
        writer.add(table(range(start, start + 100), topics))
        largest = max(largest, writer.held_bytes)
    assert largest <= max(2 * target, 4 * group_bytes)
    assert sum(file.rows for file in writer.close()) == 4000


def test_data_files_refuse_too_many_partitions(
    tmp_path: Path,
) -> None:
    rows = table(range(4), ["a", "b", "c", "d"])
    with pytest.raises(
        DatasetError, match="--partition-by topic: expected at most 3 different values"
    ):
        write(tmp_path, [rows], by=("topic",), max_partitions=3)


def test_data_files_refuse_to_overwrite_other_rows(tmp_path: Path) -> None:
    write(tmp_path, [table(range(5))])
    assert write(tmp_path, [table(range(5))])
    with pytest.raises(ConfigError, match="is there and holds other rows"):
        write(tmp_path, [table(range(6))])
