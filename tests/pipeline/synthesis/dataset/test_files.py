from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.dataset import files
from pipeline.synthesis.dataset.files import DataFiles, Partitions, check_partitions
from tests.pipeline.synthesis.sample_tables import KEPT, samples

SCHEMA = pa.schema(
    [pa.field("id", pa.int64()), pa.field("topic", pa.string()), pa.field("text", pa.string())]
)


def table(ids: range, topics: list[str | None] | None = None) -> pa.Table:
    chosen = topics or ["t"]
    texts = [f"text {number} " * (number % 7) for number in ids]
    return pa.table(
        [list(ids), [chosen[number % len(chosen)] for number in ids], texts], schema=SCHEMA
    )


def write(
    root: Path, chunks: list[pa.Table], target: int = 10**9, by: tuple[str, ...] = ()
) -> list[files.WrittenFile]:
    writer = DataFiles(str(root), "data", "train", SCHEMA, target, by)
    for chunk in chunks:
        writer.add(chunk)
    return writer.close()


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_files_have_about_the_size_and_hold_the_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "GROUP_ROWS", 100)
    written = write(
        tmp_path, [table(range(start, start + 37)) for start in range(0, 37 * 50, 37)], target=4000
    )
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
def test_the_same_rows_give_the_same_files_however_they_come(
    cuts: list[int], target: int, divided: bool
) -> None:
    import tempfile

    by = ("topic",) if divided else ()
    total, starts = sum(cuts), [sum(cuts[:place]) for place in range(len(cuts))]
    topics: list[str | None] = ["a", None, "b c", "ä/ö"]
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(files, "GROUP_ROWS", 16)
        write(
            Path(one),
            [
                table(range(start, start + cut), topics)
                for start, cut in zip(starts, cuts, strict=True)
            ],
            target,
            by,
        )
        write(Path(other), [table(range(total), topics)], target, by)
        assert contents(Path(one)) == contents(Path(other))
        if divided and total:
            found = (
                ds.dataset(f"{one}/data", partitioning="hive")
                .to_table()
                .select(SCHEMA.names)
                .sort_by("id")
            )
            assert found.cast(SCHEMA).equals(table(range(total), topics))


def test_partition_columns_are_folders_and_not_in_the_files(tmp_path: Path) -> None:
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


def test_no_row_is_one_empty_file_with_its_columns(tmp_path: Path) -> None:
    (file,) = write(tmp_path, [])
    assert (file.rows, pq.read_schema(tmp_path / file.path).names) == (0, SCHEMA.names)
    assert write(tmp_path / "p", [], by=("topic",)) == []


def test_memory_is_bounded_by_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "GROUP_BYTES", 2000)
    writer, topics = (
        DataFiles(str(tmp_path), "data", "train", SCHEMA, 1000, ("topic",)),
        [f"t{n}" for n in range(50)],
    )
    most = 0
    for start in range(0, 4000, 100):
        writer.add(table(range(start, start + 100), list(topics)))
        most = max(most, sum(opened.held_bytes for opened in writer._open.values()))
    assert most <= max(2 * 1000, 4 * 2000)
    assert sum(file.rows for file in writer.close()) == 4000


def test_a_column_of_too_many_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_PARTITIONS", 3)
    with pytest.raises(
        DatasetError, match="--partition-by topic: expected at most 3 different values"
    ):
        write(tmp_path, [table(range(4), ["a", "b", "c", "d"])], by=("topic",))


def test_a_file_of_another_data_set_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path, [table(range(5))])
    assert write(tmp_path, [table(range(5))])
    with pytest.raises(ConfigError, match="is there and holds other rows"):
        write(tmp_path, [table(range(6))])


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("x", pa.float64(), "expected a column of strings, integers or booleans, got double"),
        ("x", pa.list_(pa.string()), "got list<item: string>"),
        ("a b", pa.string(), "a folder's name holds letters, digits and _ only"),
        ("y", pa.string(), "the data set has no column 'x'; it has y"),
    ],
)
def test_columns_that_cannot_be_folders_are_refused(name: str, kind: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_partitions(["x" if name == "y" else name], pa.schema([pa.field(name, kind)]))
    assert message in str(raised.value)
    check_partitions(["id", "a", "topic"], KEPT)


def test_a_row_without_a_value_for_its_folder_is_left_out_with_a_reason() -> None:
    judged = Partitions(("topic", "a"))(
        samples([{"topic": "ok"}, {"topic": ""}, {"topic": "ü" * 40}, {"topic": None, "a": None}])
    )
    assert [
        None if each is None else (each.stage, each.reason, each.detail) for each in judged.verdicts
    ] == [
        None,
        ("partition", "no folder name: topic", "empty"),
        ("partition", "no folder name: topic", "too long"),
        None,
    ]
