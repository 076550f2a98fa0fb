"""Columns of all files: the type in which each passes through."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.input.json_text import is_json_text

STRUCT = pa.struct([("a", pa.int64()), ("b", pa.string())])


def nested_lists(levels: int) -> pa.DataType:
    data_type: Any = pa.int64()
    for _ in range(levels):
        data_type = pa.list_(data_type)
    return data_type  # type: ignore[no-any-return]


def passthrough(*data_types: pa.DataType | None) -> tuple[Any, tuple[str, ...]]:
    """Returns the field of a column with these types in several files, and the notices."""
    types = {data_type: f"{index}.parquet" for index, data_type in enumerate(data_types)}
    columns = FileColumns({"x": types}).passthrough(["x"])
    [field] = columns.fields
    return field, columns.notices


@pytest.mark.parametrize(
    "data_type",
    [
        None,
        pa.struct([]),
        pa.list_(pa.struct([])),
        pa.struct([("a", pa.struct([]))]),
        nested_lists(50),
        pa.dense_union([pa.field("a", pa.int8())]),
    ],
)
def test_passthrough_is_text_where_parquet_has_no_type(data_type: Any) -> None:
    field, notices = passthrough(data_type)
    assert is_json_text(field)
    assert field.type == pa.string()
    assert len(notices) == 1
    assert "'x'" in notices[0]


@pytest.mark.parametrize(
    ("data_type", "written"),
    [
        (pa.int64(), pa.int64()),
        (STRUCT, STRUCT),
        (pa.list_(STRUCT), pa.list_(STRUCT)),
        (nested_lists(40), nested_lists(40)),
        (pa.string_view(), pa.string()),
        (pa.list_(pa.binary_view()), pa.list_(pa.binary())),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_passthrough_has_the_type_that_is_written(data_type: Any, written: Any) -> None:
    field, notices = passthrough(data_type)
    assert (field.type, field.metadata, notices) == (written, None, ())


def test_passthrough_of_files_that_differ_has_their_common_type() -> None:
    assert passthrough(pa.int32(), pa.int64())[0].type == pa.int64()
    field, [notice] = passthrough(pa.int64(), pa.string())
    assert is_json_text(field)
    assert "int64 in 0.parquet and string in 1.parquet" in notice


def test_notice_names_the_first_columns_and_counts_the_others() -> None:
    columns = FileColumns({f"c{number}": {None: "a.jsonl"} for number in range(9)})
    [notice] = columns.passthrough(columns.names).notices
    assert "'c4'" in notice
    assert "'c5'" not in notice
    assert "4 more" in notice


def test_column_name_that_is_not_unicode_is_rejected() -> None:
    with pytest.raises(DatasetError, match=r"a\.jsonl: expected valid Unicode in names"):
        FileColumns({"\ud800": {pa.int64(): "a.jsonl"}})
