"""Parquet files: row ranges, schemas that differ, damage."""

import errno
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.columns import inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.reader import read_rows
from pipeline.records import PromptRow, Shard
from tests.pipeline.input.input_files import COLUMNS, read_all, read_error, write


def test_parquet_row_groups_between_shards_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"prompt": [str(row) for row in range(100)]}
    url = write(tmp_path / "a.parquet", columns, row_group_size=10)
    groups: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, **options: Any) -> Any:
        groups.append(options["row_groups"])
        assert options["columns"] == ["prompt"]
        return original(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    shards = [Shard(0, url, 3, 2), Shard(1, url, 6, 8), Shard(9, url, 95, 5)]
    schema = inspect_columns(list_input(url), COLUMNS)
    rows = list(read_rows(shards, schema))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == [
        str(row) for row in [3, 4, *range(6, 14), *range(95, 100)]
    ]
    assert groups == [[0], [1], [9]]


def test_parquet_files_of_different_columns_are_rejected(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["x"], "n_words": [1]})
    write(tmp_path / "b.parquet", {"n_words": [1], "prompt": ["the order does not matter"]})
    assert len(read_all(str(tmp_path))[0]) == 2
    write(tmp_path / "c.parquet", {"prompt": ["x"]})
    with pytest.raises(DatasetError, match=r"column 'n_words' of .*c\.parquet is missing"):
        read_all(str(tmp_path))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (pa.nulls(1), ["a", None]),
        (pa.array(["b"], pa.large_string()), ["a", "b"]),
        (pa.array(["b"], pa.string_view()), ["a", "b"]),
        (pa.array(["b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([7]), ['"a"', "7"]),
        (pa.array([{"x": [1]}]), ['"a"', '{"x": [1]}']),
    ],
)
def test_parquet_files_of_different_types_keep_their_values(
    tmp_path: Path, second: Any, expected: list[Any]
) -> None:
    write(tmp_path / "a.parquet", {"prompt": ["x"], "note": ["a"]})
    write(tmp_path / "b.parquet", {"prompt": ["x"], "note": second})
    rows, passthrough, schema = read_all(str(tmp_path))
    assert all(isinstance(row, PromptRow) for row in rows)
    assert passthrough["note"].to_pylist() == expected
    assert bool(schema.notices) == expected[0].startswith('"')


def test_parquet_input_columns_may_differ_between_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": [1], "prompt": ["x"], "max_tokens": [8]})
    prompts = pa.array(["y"], pa.large_string())
    ids = pa.array([2], pa.int32())
    write(tmp_path / "b.parquet", {"id": ids, "prompt": prompts, "max_tokens": [7.0]})
    rows, passthrough, _ = read_all(str(tmp_path))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == ["x", "y"]
    assert passthrough["id"].to_pylist() == [1, 2]
    write(tmp_path / "b.parquet", {"id": ["2"], "prompt": prompts, "max_tokens": [7.0]})
    with pytest.raises(DatasetError, match="column 'id' has values of several types"):
        read_all(str(tmp_path))
    write(tmp_path / "b.parquet", {"id": ids, "prompt": [1], "max_tokens": [7.0]})
    with pytest.raises(DatasetError, match=r"b\.parquet: column 'prompt' is int64, expected a str"):
        read_all(str(tmp_path))


def test_parquet_file_that_vanished_or_shrank_is_named(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": list("abcd")})
    schema = inspect_columns(list_input(url), COLUMNS)
    write(tmp_path / "a.parquet", {"prompt": list("ab")})
    shard = Shard(0, url, 0, 4)
    assert "a.parquet has 2 rows, and had 4" in read_error(shard, schema)
    (tmp_path / "a.parquet").unlink()
    assert re.search(r"cannot read .*a\.parquet: it does not exist", read_error(shard, schema))


def test_parquet_file_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    url = write(
        tmp_path / "a.parquet",
        {"prompt": [f"prompt number {row}" for row in range(5000)]},
        compression="zstd",
    )
    data = bytearray(Path(url).read_bytes())
    data[100:4000] = bytes(3900)
    Path(url).write_bytes(data)
    schema = inspect_columns(list_input(url), COLUMNS)
    message = read_error(Shard(0, url, 0, 5000), schema)
    assert "a.parquet is not a readable Parquet file" in message


def test_parquet_failure_of_the_disk_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"prompt": ["x"]})
    with (
        pytest.raises(DatasetError, match=r"a\.parquet") as caught,
        formats.open_parquet(url),
    ):
        raise OSError(errno.EIO, "Input/output error")
    assert "not a readable Parquet file" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a readable Parquet"), formats.open_parquet(url):
        raise OSError("Corrupt snappy compressed data.")


def test_parquet_cursor_reads_only_the_columns_it_needs(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"x": [1, 2], "y": ["a", "b"], "z": [0.5, 1.5]})
    wanted = pa.schema([("z", pa.float64()), ("x", pa.int64())])
    with formats.open_cursor(formats.SourceFile(url), ("x",), wanted) as cursor:
        rows = cursor.take(0, 2)
    assert rows.values == {"x": [1, 2]}
    assert rows.passthrough.to_pydict() == {"z": [0.5, 1.5], "x": [1, 2]}


def test_parquet_range_beyond_the_file_is_rejected(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", {"x": [1, 2, 3]})
    with formats.open_cursor(formats.SourceFile(url), ("x",), pa.schema([])) as cursor:
        assert cursor.take(1, 2).values == {"x": [2, 3]}
    for first_row, count in ((0, 4), (2, 2), (3, 1)):
        with (
            formats.open_cursor(formats.SourceFile(url), ("x",), pa.schema([])) as cursor,
            pytest.raises(DatasetError, match=rf"has 3 rows, and had {first_row + count} or more"),
        ):
            cursor.take(first_row, count)
