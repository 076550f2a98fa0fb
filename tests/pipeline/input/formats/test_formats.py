"""The registry of formats: which one reads a file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.formats import SourceFile
from pipeline.input.formats.jsonl import JSON_LINES
from pipeline.input.formats.parquet import PARQUET
from pipeline.records import InputFile


@pytest.mark.parametrize(
    ("url", "input_format"),
    [
        ("a.jsonl", JSON_LINES),
        ("s3://bucket/A.NDJSON", JSON_LINES),
        ("a.parquet", PARQUET),
        ("a.pq", PARQUET),
        ("jsonl", PARQUET),
        ("a.jsonl/part-0", PARQUET),
        ("a", PARQUET),
    ],
)
def test_format_is_found_by_suffix(url: str, input_format: formats.InputFormat) -> None:
    assert formats.format_of(url) is input_format


def test_suffixes_belong_to_one_format_each() -> None:
    assert len(set(formats.SUFFIXES)) == len(formats.SUFFIXES)
    for suffix in formats.SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_formats_agree_on_rows_and_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_text('{"x": 1, "y": "a"}\n\n{"x": 2, "y": "b"}\n{"x": 3, "y": "c"}\n')
    else:
        pq.write_table(pa.table({"x": [1, 2, 3], "y": ["a", "b", "c"]}), path)
    url = str(path)
    types = {"x": {pa.int64(): url}, "y": {pa.string(): url}}
    assert formats.count_rows(url) == 3
    assert formats.file_columns([InputFile(url, 1, "", 3)]).types == types
    with formats.open_cursor(SourceFile(url), ("y",), pa.schema([("x", pa.int64())])) as cursor:
        first, last = cursor.take(0, 1), cursor.take(2, 1)
    assert (first.values, first.passthrough.to_pydict()) == ({"y": ["a"]}, {"x": [1]})
    assert (last.values, last.passthrough.to_pydict()) == ({"y": ["c"]}, {"x": [3]})


@pytest.mark.parametrize("urls", [("a.parquet", "b.jsonl"), ("b.jsonl", "a.parquet")])
def test_file_columns_rejects_several_formats(urls: tuple[str, str]) -> None:
    files = [InputFile(url, 1, "", 1) for url in urls]
    with pytest.raises(DatasetError, match=r"mixes .*Parquet.*\(.*, .*\); run them separately"):
        formats.file_columns(files)


def test_cursor_reports_a_version_that_changed(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl"):
        path = tmp_path / name
        path.write_text("{}\n")
        with (
            pytest.raises(DatasetError, match="it changed"),
            formats.open_cursor(SourceFile(str(path), "0"), (), pa.schema([])) as cursor,
        ):
            cursor.take(0, 1)
