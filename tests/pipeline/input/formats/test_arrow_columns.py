"""arrow_columns.py: errors of damaged files, and the columns that several files have in common."""

import errno
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DatasetError
from pipeline.input.formats.arrow_columns import column_types, damage_explained, united_columns
from pipeline.records import InputFile


def file(url: str, **columns: pa.DataType) -> InputFile:
    return InputFile(url, 1, "v", rows=1, columns=columns)


@pytest.mark.parametrize(
    "error", [pa.ArrowInvalid("bad page\n  at byte 4"), OSError("bad page\n  at byte 4")]
)
def test_error_of_arrow_becomes_one_sentence(error: Exception) -> None:
    with (
        pytest.raises(
            DatasetError,
            match=r"^s3://b/in\.parquet is not a readable Parquet file: bad page at byte 4; write",
        ),
        damage_explained("s3://b/in.parquet", "Parquet"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), ConnectionResetError(104, "reset")]
)
def test_error_of_the_storage_is_left_to_the_storage(error: OSError) -> None:
    with pytest.raises(type(error)) as raised, damage_explained("in.parquet", "Parquet"):
        raise error
    assert raised.value is error


def test_column_that_a_file_has_twice_is_an_error() -> None:
    assert column_types(pa.schema([("a", pa.int64())]), "in.parquet") == {"a": pa.int64()}
    twice = pa.schema([("a", pa.int64()), ("a", pa.string())])
    with pytest.raises(DatasetError, match=r"^in\.parquet has more than one column 'a'; rename"):
        column_types(twice, "in.parquet")


def test_files_may_have_their_columns_in_another_order() -> None:
    first = file("1.parquet", a=pa.int64(), b=pa.string())
    second = file("2.parquet", b=pa.string(), a=pa.int32())
    types: Any = united_columns([first, second])
    assert types.types == {
        "a": {pa.int64(): "1.parquet", pa.int32(): "2.parquet"},
        "b": {pa.string(): "1.parquet"},
    }


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"a": pa.int64()}, {}, r"column 'a' of 2\.parquet is missing, but 1\.parquet has it"),
        ({}, {"b": pa.int64()}, r"column 'b' of 1\.parquet is missing, but 2\.parquet has it"),
    ],
)
def test_column_that_one_file_lacks_is_an_error(
    first: dict[str, pa.DataType], second: dict[str, pa.DataType], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        united_columns([file("1.parquet", **first), file("2.parquet", **second)])
